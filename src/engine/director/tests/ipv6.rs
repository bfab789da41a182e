//! What the kernel's IPVS misreads of IPv6, and the director does not.

use super::*;

const CLIENT_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12];
const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SERVER_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x10];

/// A service with one server, and a director that misreads, or does not.
fn balanced(misreads_ipv6: bool) -> Fixture {
    let mut fixture = Fixture::empty();
    let config = DirectorConfig { misreads_ipv6, ..DirectorConfig::new(0, 42) };
    fixture.director = Director::new(Arc::clone(&fixture.services), config, fixture.now);
    let [vip, server] = [VIP_V6, SERVER_V6].map(|octets| Addr::v6(u128::from_be_bytes(octets)));
    let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: vip, port: 80 };
    fixture.services.add_service(ServiceSpec::new(key), fixture.now).unwrap();
    let real = RealSpec { method: ForwardingMethod::Masquerade, ..RealSpec::new(server, 80) };
    fixture.services.add_real(&key, &real).unwrap();
    fixture.director.refresh();
    fixture
}

/// A SYN to the service, behind destination options if `extended`.
fn syn(extended: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv6(CLIENT_V6, VIP_V6, 64);
    ip.tcp(1000, 80, 1000, 1024).syn().write(&mut bytes, &[]).unwrap();
    if extended {
        bytes.splice(40..40, [bytes[6], 0, 1, 4, 0, 0, 0, 0]);
        bytes[6] = 60;
        let len = bytes.len() - 40;
        set_word(&mut bytes, 4, len as u16);
    }
    bytes
}

#[test]
fn extension_headers_mislead_the_state_only_where_that_is_wanted() {
    for (misreads, state) in [(false, "SYN_RECV"), (true, "CLOSE")] {
        let mut lab = balanced(misreads);
        assert!(matches!(lab.send(&mut syn(true)), Verdict::Forward(_)));
        assert_eq!(lab.states(), [state]);
    }
}

#[test]
fn errors_of_servers_reach_clients_unless_that_is_not_wanted() {
    for misreads in [false, true] {
        let mut lab = balanced(misreads);
        let mut request = syn(false);
        lab.send(&mut request);
        let mut error = Vec::new();
        let ip = PacketBuilder::ipv6(SERVER_V6, CLIENT_V6, 64);
        ip.icmpv6_raw(2, 0, 1400_u32.to_be_bytes()).write(&mut error, &request).unwrap();
        let verdict = lab.send(&mut error.clone());
        assert_eq!(matches!(verdict, Verdict::Forward(_)), !misreads, "{verdict:?}");
        // A wrong sum is never believed.
        error[42] ^= 1;
        assert_eq!(lab.send(&mut error), Verdict::Drop(DropReason::BadChecksum));
    }
}
