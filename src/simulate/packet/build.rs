//! Packet to bytes.

use super::parse::gue_options;
use super::wire::{internet_checksum, octets, pseudo_header};
use super::{IPV6_FRAGMENT, Packet, Proto, SCTP_CHUNKS, Sum, TCP_FLAGS};

/// What a deliberately wrong checksum differs by.
const SPOILED: u16 = 0x5555;

impl Packet {
    /// The packet as bytes, from its IP header on, cut short where it says so.
    pub fn build(&self) -> Vec<u8> {
        let mut whole = self.build_whole();
        if self.fields.quote != 0 {
            whole.truncate(self.fields.quote);
        }
        whole
    }

    /// Length in bytes before any cutting.
    pub(super) fn whole_len(&self) -> usize {
        self.build_whole().len()
    }

    fn build_whole(&self) -> Vec<u8> {
        self.wrap_in_ip(&self.build_transport())
    }

    /// Everything after the IP header.
    pub(super) fn build_transport(&self) -> Vec<u8> {
        match self.proto {
            Proto::Tcp => self.build_tcp(),
            Proto::Udp => self.build_udp(),
            Proto::Icmp | Proto::Icmp6 => self.build_icmp(),
            Proto::Sctp => self.build_sctp(),
            Proto::Esp => self.after(&[self.fields.spi, self.fields.seq]),
            Proto::Ah => self.build_ah(),
            Proto::IpIp => self.inner_bytes(),
            Proto::Gre => self.build_gre(),
            Proto::Igmp | Proto::Other(_) => self.fields.payload.bytes(),
        }
    }

    fn build_tcp(&self) -> Vec<u8> {
        let fields = &self.fields;
        let set = |(bit, letter)| if self.kind.contains(letter) { 1u8 << bit } else { 0 };
        let flags = TCP_FLAGS.chars().enumerate().map(set).fold(0, |all, flag| all | flag);
        let words = 5 + fields.opts.len() / 4;
        let mut data = self.port_bytes();
        data.extend(fields.seq.to_be_bytes());
        data.extend(fields.ack.to_be_bytes());
        data.extend([(words << 4) as u8, flags]);
        data.extend(fields.win.to_be_bytes());
        data.extend([0; 4]);
        data.extend(&fields.opts);
        data.extend(fields.payload.bytes());
        self.summed(data, 16, true)
    }

    fn build_udp(&self) -> Vec<u8> {
        let payload = self.udp_payload();
        let mut data = self.port_bytes();
        data.extend(((8 + payload.len()) as u16).to_be_bytes());
        data.extend([0; 2]);
        data.extend(payload);
        self.summed(data, 6, true)
    }

    fn udp_payload(&self) -> Vec<u8> {
        let Some(inner) = &self.inner else { return self.fields.payload.bytes() };
        let options = self.kind.strip_prefix("gue").and_then(gue_options).unwrap_or(vec![0; 2]);
        let mut data =
            vec![((options.len() - 2) / 4) as u8, if inner.src.is_ipv6() { 41 } else { 4 }];
        data.extend(options);
        data.extend(self.inner_bytes());
        data
    }

    fn build_icmp(&self) -> Vec<u8> {
        let fields = &self.fields;
        let (kind, code) = self.kind.split_once('/').unwrap_or_default();
        let mut data = vec![kind.parse().unwrap_or(0), code.parse().unwrap_or(0), 0, 0];
        if self.inner.is_some() {
            let rest = fields.gw.map_or(fields.mtu.to_be_bytes(), |gateway| gateway.octets());
            data.extend(rest);
            data.extend(self.inner_bytes());
        } else {
            data.extend(fields.ident.to_be_bytes());
            data.extend((fields.seq as u16).to_be_bytes());
            data.extend(fields.payload.bytes());
        }
        self.summed(data, 2, self.proto == Proto::Icmp6)
    }

    fn build_sctp(&self) -> Vec<u8> {
        let mut data = self.port_bytes();
        data.extend(self.fields.tag.to_be_bytes());
        data.extend([0; 4]);
        for name in self.kind.split('+') {
            let number = SCTP_CHUNKS.iter().position(|each| *each == name).unwrap_or(0);
            let body = match name {
                "DATA" | "INIT" | "INIT_ACK" => 16,
                "SACK" => 12,
                "SHUTDOWN" => 4,
                _ => 0,
            };
            data.extend([number as u8, 0, 0, 4 + body]);
            data.resize(data.len() + usize::from(body), 0);
        }
        let spoiled = if self.fields.sum == Sum::Bad { u32::from(SPOILED) } else { 0 };
        let crc = crc32c::crc32c(&data) ^ spoiled;
        data[8..12].copy_from_slice(&crc.to_le_bytes());
        data
    }

    fn build_ah(&self) -> Vec<u8> {
        let mut data = vec![59, 4, 0, 0];
        data.extend(self.fields.spi.to_be_bytes());
        data.extend(self.fields.seq.to_be_bytes());
        data.extend([0; 12]);
        data.extend(self.fields.payload.bytes());
        data
    }

    fn build_gre(&self) -> Vec<u8> {
        let ipv6 = self.inner.as_ref().is_some_and(|inner| inner.src.is_ipv6());
        let ethertype: u16 = if ipv6 { 0x86dd } else { 0x0800 };
        let mut data = vec![if self.fields.csum { 0x80 } else { 0 }, 0];
        data.extend(ethertype.to_be_bytes());
        if self.fields.csum {
            data.extend([0; 4]);
        }
        data.extend(self.inner_bytes());
        if self.fields.csum { self.summed(data, 4, false) } else { data }
    }

    fn port_bytes(&self) -> Vec<u8> {
        let (sport, dport) = self.ports.unwrap_or_default();
        [sport.to_be_bytes(), dport.to_be_bytes()].concat()
    }

    fn inner_bytes(&self) -> Vec<u8> {
        match self.inner.as_deref() {
            Some(inner) if !inner.raw.is_empty() => inner.raw.clone(),
            Some(inner) => inner.build(),
            None => Vec::new(),
        }
    }

    /// The payload after some 32-bit words.
    fn after(&self, words: &[u32]) -> Vec<u8> {
        let mut data: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        data.extend(self.fields.payload.bytes());
        data
    }

    /// Puts the checksum of `data` into it at byte `at`, which is 0 yet.
    fn summed(&self, mut data: Vec<u8>, at: usize, pseudo: bool) -> Vec<u8> {
        let mut covered = Vec::new();
        if pseudo {
            covered = pseudo_header(self.src, self.dst, self.protocol_number(), data.len());
        }
        covered.extend(&data);
        let value = match (self.fields.sum, internet_checksum(&covered)) {
            (Sum::Bad, value) => value ^ SPOILED,
            (Sum::Absent, _) => 0,
            (Sum::Good, 0) if self.proto == Proto::Udp => 0xffff,
            (Sum::Good, value) => value,
        };
        data[at..at + 2].copy_from_slice(&value.to_be_bytes());
        data
    }

    /// Puts the packet's IP header in front of what it carries.
    pub(super) fn wrap_in_ip(&self, transport: &[u8]) -> Vec<u8> {
        if self.src.is_ipv6() { self.wrap_in_ipv6(transport) } else { self.wrap_in_ipv4(transport) }
    }

    fn wrap_in_ipv4(&self, transport: &[u8]) -> Vec<u8> {
        let fields = &self.fields;
        let header_len = 20 + fields.ipopts.len();
        let (offset, more) = fields.frag.map_or((0, false), |frag| (frag.offset, frag.more));
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let flags = flag(fields.df, 0x4000) | flag(more, 0x2000) | offset >> 3;
        let mut header = vec![(0x40 + header_len / 4) as u8, fields.tos];
        header.extend(((header_len + transport.len()) as u16).to_be_bytes());
        header.extend((fields.id as u16).to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend([fields.ttl, self.protocol_number(), 0, 0]);
        header.extend(octets(self.src));
        header.extend(octets(self.dst));
        header.extend(&fields.ipopts);
        let sum = internet_checksum(&header) ^ if fields.bad_ip_sum { SPOILED } else { 0 };
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(transport);
        header
    }

    fn wrap_in_ipv6(&self, transport: &[u8]) -> Vec<u8> {
        let fields = &self.fields;
        let fragment = fields.frag.map(|_| IPV6_FRAGMENT);
        let mut chain: Vec<u8> = fields.ext.iter().copied().chain(fragment).collect();
        chain.push(self.protocol_number());
        let mut body = Vec::new();
        for pair in chain.windows(2) {
            match fields.frag {
                Some(frag) if pair[0] == IPV6_FRAGMENT => {
                    body.extend([pair[1], 0]);
                    body.extend((frag.offset | u16::from(frag.more)).to_be_bytes());
                    body.extend(fields.id.to_be_bytes());
                }
                // One PadN option that fills the header.
                _ => body.extend([pair[1], 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        body.extend(transport);
        let mut packet = (6 << 28 | u32::from(fields.tos) << 20).to_be_bytes().to_vec();
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([chain[0], fields.ttl]);
        packet.extend(octets(self.src));
        packet.extend(octets(self.dst));
        packet.extend(body);
        packet
    }
}
