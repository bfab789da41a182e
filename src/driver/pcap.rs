//! Capture files as a source and a sink of frames.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use arrayvec::ArrayVec;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError};

use super::{BATCH, HEADROOM, Receiver, ReceiverCounters, SOURCES, Sender, SenderCounters, virtio};
use crate::packet::PacketBuf;
use crate::packet::segment::to_wire;

/// What the packets of a file begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    RawIp,
}

impl LinkType {
    fn of(link: DataLink) -> Option<Self> {
        match link {
            DataLink::ETHERNET => Some(Self::Ethernet),
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => Some(Self::RawIp),
            _ => None,
        }
    }

    fn code(self) -> DataLink {
        match self {
            Self::Ethernet => DataLink::ETHERNET,
            Self::RawIp => DataLink::RAW,
        }
    }

    /// Where the network header of a frame starts.
    fn network(self, frame: &[u8]) -> usize {
        let mut at = match self {
            Self::RawIp => return 0,
            Self::Ethernet => ETHERTYPE_AT,
        };
        while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
            at += VLAN_TAG_BYTES;
        }
        at + 2
    }
}

/// Receives the packets of a capture file, as fast as they are asked for.
#[derive(Debug)]
pub struct PcapReceiver<R: Read> {
    reader: PcapReader<R>,
    link: LinkType,
    finished: bool,
    counters: ReceiverCounters,
}

impl<R: Read> PcapReceiver<R> {
    /// Starts to read a file.
    ///
    /// **Errors** — it is no capture file in pcap format, or holds neither Ethernet nor IP.
    pub fn new(file: R) -> io::Result<Self> {
        let reader = PcapReader::new(file).map_err(error)?;
        let link = reader.header().datalink;
        let link = LinkType::of(link).ok_or_else(|| {
            let problem =
                format!("capture file: link type {link:?} is neither Ethernet nor raw IP");
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        Ok(Self { reader, link, finished: false, counters: ReceiverCounters::default() })
    }

    /// What its packets begin with.
    pub fn link_type(&self) -> LinkType {
        self.link
    }

    /// Hands the next whole packet to `handle`, with the time of its capture. `None` at the end
    /// of the file.
    ///
    /// **Errors** — the file cannot be read further, or its format is violated.
    pub fn receive_one<T>(
        &mut self,
        handle: impl FnOnce(Duration, &mut PacketBuf<'_>) -> T,
    ) -> io::Result<Option<T>> {
        Ok(self.read()?.map(|(time, mut storage)| {
            let end = storage.len();
            handle(time, &mut PacketBuf::new(&mut storage, ROOM_BYTES, end))
        }))
    }

    fn read(&mut self) -> io::Result<Option<(Duration, Vec<u8>)>> {
        while !self.finished {
            let Some(packet) = self.reader.next_packet() else {
                self.finished = true;
                break;
            };
            let packet = packet.map_err(error).inspect_err(|_| self.finished = true)?;
            if packet.data.len() as u64 != u64::from(packet.orig_len) {
                self.counters.damaged += 1;
                continue;
            }
            self.counters.frames += 1;
            let mut storage = vec![0; ROOM_BYTES];
            storage.extend_from_slice(&packet.data);
            return Ok(Some((packet.timestamp, storage)));
        }
        Ok(None)
    }
}

impl<R: Read + Send> Receiver for PcapReceiver<R> {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let mut frames = ArrayVec::<Vec<u8>, BATCH>::new();
        let mut failure = None;
        while !frames.is_full() && failure.is_none() {
            match self.read() {
                Ok(Some((_, storage))) => frames.push(storage),
                Ok(None) => break,
                Err(error) => failure = Some(error),
            }
        }
        let mut batch: ArrayVec<PacketBuf<'_>, BATCH> = frames
            .iter_mut()
            .map(|storage| {
                let end = storage.len();
                PacketBuf::new(storage, ROOM_BYTES, end)
            })
            .collect();
        if !batch.is_empty() {
            handle(&mut batch);
        }
        failure.map_or(Ok(batch.len()), Err)
    }

    fn readiness(&self) -> ArrayVec<BorrowedFd<'_>, SOURCES> {
        ArrayVec::new()
    }

    fn is_gone(&mut self) -> bool {
        self.finished
    }

    fn counters(&mut self) -> ReceiverCounters {
        self.counters
    }
}

/// Writes what it is to send into a capture file, as it would appear on a wire: super-frames cut,
/// checksums finished.
#[derive(Debug)]
pub struct PcapSender<W: Write> {
    writer: PcapWriter<W>,
    link: LinkType,
    time: Duration,
    failure: Option<io::Error>,
    counters: SenderCounters,
}

impl<W: Write> PcapSender<W> {
    /// Starts to write a file.
    pub fn new(file: W, link: LinkType) -> io::Result<Self> {
        let header = PcapHeader { datalink: link.code(), ..PcapHeader::default() };
        let writer = PcapWriter::with_header(file, header).map_err(error)?;
        let (time, counters) = (Duration::ZERO, SenderCounters::default());
        Ok(Self { writer, link, time, failure: None, counters })
    }

    /// Sets the time that the packets sent from now on bear, since 1970.
    pub fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// Ends the file and returns what it was written to.
    ///
    /// **Errors** — the first that writing has met; what was sent after it is lost.
    pub fn finish(mut self) -> io::Result<W> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => {
                let mut file = self.writer.into_writer();
                file.flush()?;
                Ok(file)
            }
        }
    }

    fn send_one(&mut self, frame: &mut PacketBuf<'_>) {
        if self.failure.is_some() {
            self.counters.refused += 1;
            return;
        }
        let network = self.link.network(frame.bytes());
        let (writer, time) = (&mut self.writer, self.time);
        let mut written = Ok(0);
        let cut = to_wire(frame, network, 0, |frame| {
            let bytes = frame.bytes();
            if written.is_ok() {
                let packet = PcapPacket::new(time, bytes.len() as u32, bytes);
                written = writer.write_packet(&packet);
            }
        });
        match (cut, written) {
            (Err(_), _) => self.counters.rejected += 1,
            (Ok(()), Ok(_)) => self.counters.frames += 1,
            (Ok(()), Err(PcapError::IoError(error))) => {
                self.counters.refused += 1;
                self.failure = Some(error);
            }
            (Ok(()), Err(_)) => self.counters.rejected += 1,
        }
    }
}

impl<W: Write + Send> Sender for PcapSender<W> {
    fn send(&mut self, frames: &mut [&mut PacketBuf<'_>]) {
        for frame in frames {
            self.send_one(frame);
        }
    }

    fn counters(&self) -> SenderCounters {
        self.counters
    }
}

fn error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("capture file: {other}")),
    }
}

/// The room that packets have in front: as much as those of a packet socket.
const ROOM_BYTES: usize = HEADROOM + virtio::HEADER_BYTES;
const ETHERTYPE_AT: usize = 12;
const VLAN_TAG_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{SegmentKind, Segmentation};

    fn written(link: LinkType, frames: &[&[u8]]) -> Vec<u8> {
        let mut sender = PcapSender::new(Vec::new(), link).unwrap();
        for (second, frame) in frames.iter().enumerate() {
            sender.set_time(Duration::from_secs(second as u64));
            let mut storage = frame.to_vec();
            let end = storage.len();
            sender.send(&mut [&mut PacketBuf::new(&mut storage, 0, end)]);
        }
        assert_eq!(sender.counters().frames, frames.len() as u64);
        sender.finish().unwrap()
    }

    #[test]
    fn what_was_written_is_read_with_its_time_and_headroom() {
        for link in [LinkType::Ethernet, LinkType::RawIp] {
            let file = written(link, &[&[1; 60], &[2; 1514]]);
            let mut receiver = PcapReceiver::new(&file[..]).unwrap();
            assert_eq!(receiver.link_type(), link);
            for (second, len) in [(0, 60), (1, 1514)] {
                let look = |time, packet: &mut PacketBuf<'_>| {
                    assert!(packet.headroom() >= HEADROOM);
                    (time, packet.len())
                };
                let seen = receiver.receive_one(look).unwrap();
                assert_eq!(seen, Some((Duration::from_secs(second), len)));
            }
            assert!(receiver.receive_one(|_, _| ()).unwrap().is_none());
            assert!(receiver.is_gone());
        }
    }

    #[test]
    fn batches_have_a_limit_and_end_with_the_file() {
        let frame: &[u8] = &[9; 60];
        let file = written(LinkType::Ethernet, &[frame; 100]);
        let mut receiver = PcapReceiver::new(&file[..]).unwrap();
        let counts = [64, 36, 0].map(|_| receiver.receive(&mut |_| ()).unwrap());
        assert_eq!(counts, [64, 36, 0]);
        assert_eq!(receiver.counters().frames, 100);
    }

    #[test]
    fn a_truncated_file_gives_what_is_whole_and_then_an_error() {
        let mut file = written(LinkType::Ethernet, &[&[1; 60], &[2; 60]]);
        file.truncate(file.len() - 1);
        let mut receiver = PcapReceiver::new(&file[..]).unwrap();
        let mut seen = 0;
        assert!(receiver.receive(&mut |batch| seen += batch.len()).is_err());
        assert_eq!(seen, 1);
        assert!(receiver.is_gone());
        assert_eq!(receiver.receive(&mut |_| ()).unwrap(), 0);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        assert!(PcapReceiver::new(&b"not a capture file, is it?"[..]).is_err());
        let mut file = written(LinkType::Ethernet, &[]);
        file[20..24].copy_from_slice(&113u32.to_be_bytes());
        let error = PcapReceiver::new(&file[..]).unwrap_err().to_string();
        assert!(error.contains("neither Ethernet nor raw IP"), "{error}");
    }

    #[test]
    fn a_super_frame_is_written_as_its_segments() {
        let mut storage = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .vlan(etherparse::VlanHeader::Single(etherparse::SingleVlanHeader {
                vlan_id: etherparse::VlanId::try_new(7).unwrap(),
                ..Default::default()
            }))
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1, 2, 3, 4);
        builder.write(&mut storage, &[5; 3000]).unwrap();
        let end = storage.len();
        let mut packet = PacketBuf::new(&mut storage, 0, end);
        packet.offload.segmentation =
            Segmentation { kind: SegmentKind::TcpV4, size_bytes: 1400, ..Default::default() };
        let mut sender = PcapSender::new(Vec::new(), LinkType::Ethernet).unwrap();
        sender.send(&mut [&mut packet]);
        let file = sender.finish().unwrap();
        let mut lengths = Vec::new();
        let mut receiver = PcapReceiver::new(&file[..]).unwrap();
        let look = &mut |batch: &mut [PacketBuf<'_>]| lengths.extend(batch.iter().map(|p| p.len()));
        receiver.receive(look).unwrap();
        assert_eq!(lengths, [1458, 1458, 258]);
    }
}
