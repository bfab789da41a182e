use std::net::{IpAddr, Ipv4Addr};

use etherparse::{IpNumber, Ipv4Header, PacketBuilder};

use super::*;
use crate::control::iptables::Listing;
use crate::engine::mark::Subject;
use crate::engine::service::Protocol;
use crate::engine::{Network, Owner};
use crate::lab::net::{Namespace, sandbox};
use crate::packet::{Addr, Headers};

#[test]
fn rules_of_tutorials_are_taken_and_listed_as_iptables_lists_them() {
    let table = ServiceTable::new(1);
    for (words, shown) in [
        (
            "iptables -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK \
             --set-mark 10",
            "-A PREROUTING -d 192.168.122.2/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark \
             0xa/0xffffffff",
        ),
        (
            "-A PREROUTING -i eth0 -p tcp -m multiport --dports 80,443,8000:8010 -j MARK \
             --set-mark 0x1/0xf",
            "-A PREROUTING -i eth0 -p tcp -m multiport --dports 80,443,8000:8010 -j MARK \
             --set-xmark 0x1/0xf",
        ),
        (
            "-A PREROUTING -s 10.1.2.3/8 -p udp -m udp --sport :1023 -j MARK --set-xmark 2/3",
            "-A PREROUTING -s 10.0.0.0/8 -p udp -m udp --sport 0:1023 -j MARK --set-xmark \
             0x2/0x3",
        ),
        (
            "-A PREROUTING -d 2001:db8::/64 -j MARK --set-mark 1",
            "-A PREROUTING -d 2001:db8::/64 -j MARK --set-xmark 0x1/0xffffffff",
        ),
    ] {
        edit(&table, words).unwrap();
        assert_eq!(list(&table), [shown]);
        edit(&table, &shown.replacen("-A", "-D", 1)).unwrap();
        assert!(list(&table).is_empty());
    }
}

/// Knows what the system would know.
struct Known;

impl Names for Known {
    fn address(&mut self, host: &str) -> Option<Ipv4Addr> {
        self.addresses(host).first().copied()
    }

    fn addresses(&mut self, host: &str) -> Vec<Ipv4Addr> {
        match host {
            "www.example" => vec![Ipv4Addr::new(12, 0, 0, 1), Ipv4Addr::new(12, 0, 0, 2)],
            _ => Vec::new(),
        }
    }

    fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16> {
        match (service, protocol) {
            ("http", Protocol::Tcp) => Some(80),
            ("https", Protocol::Tcp) => Some(443),
            ("domain", _) => Some(53),
            _ => None,
        }
    }

    fn host(&mut self, _: IpAddr) -> Option<String> {
        None
    }

    fn service(&mut self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

/// Carries out a command with names, as the tool does.
fn tell(table: &ServiceTable, line: &str) -> Result<(), String> {
    let split = shlex::split(line).unwrap();
    parse_mark(&split, &mut Known)?.iter().try_for_each(|each| edit(table, &words(each)))
}

#[test]
fn what_iptables_takes_is_listed_as_iptables_lists_it() {
    let table = ServiceTable::new(1);
    for (given, shown) in [
        ("-p tcp --dport http", "-p tcp -m tcp --dport 80"),
        ("--dport http:https -p tcp", "-p tcp -m tcp --dport 80:443"),
        ("-p tcp -m multiport --dports http,https", "-p tcp -m multiport --dports 80,443"),
        ("-p udp --sport domain", "-p udp -m udp --sport 53"),
        ("-s 0/0 -p udp", "-p udp"),
        ("-s 0.0.0.0/0 -d 10.1/16", "-d 10.1.0.0/16"),
        ("-s 10/8 -d 12.0.0.9/255.255.255.0", "-s 10.0.0.0/8 -d 12.0.0.0/24"),
        ("-s 12.0.0.9/0.0.0.0 -d 12.0.0.9/255.255.255.255", "-d 12.0.0.9/32"),
        ("-d 2001:db8::9/64", "-d 2001:db8::/64"),
        ("-m comment --comment web", "-m comment --comment web"),
        (
            "! -s 10.0.0.9/8 ! -d 12.0.0.1 ! -i eth+ ! -p tcp",
            "! -s 10.0.0.0/8 ! -d 12.0.0.1/32 ! -i eth+ ! -p tcp",
        ),
        ("-p TCP ! --dport http", "-p tcp -m tcp ! --dport 80"),
        ("-i + -p tcp --dport 0:65535", "-p tcp -m tcp"),
        ("-p tcp --tcp-flags NONE NONE", "-p tcp -m tcp"),
        ("-p tcp --dport 0x50", "-p tcp -m tcp --dport 80"),
        ("-p tcp --dport 010", "-p tcp -m tcp --dport 8"),
        ("-p tcp -m multiport ! --dport http,90", "-p tcp -m multiport ! --dports 80,90"),
        ("-m comment --comment 'the web'", "-m comment --comment \"the web\""),
        (r#"-m comment --comment 'a "b" \ # c'"#, r#"-m comment --comment "a \"b\" \\ # c""#),
    ] {
        tell(&table, &format!("-A PREROUTING {given} -j MARK --set-mark 1")).unwrap();
        let shown = format!("PREROUTING {shown} -j MARK --set-xmark 0x1/0xffffffff");
        assert_eq!(list(&table), [format!("-A {shown}")]);
        tell(&table, &format!("-D {shown}")).unwrap();
        assert!(list(&table).is_empty());
    }
}

#[test]
fn rules_have_numbers_and_each_address_of_a_host_has_a_rule() {
    let table = ServiceTable::new(1);
    let rules = || -> Vec<String> {
        let short = |line: String| line.split(' ').nth(3).unwrap().to_owned();
        list(&table).into_iter().map(short).collect()
    };
    tell(&table, "-P PREROUTING ACCEPT").unwrap();
    tell(&table, "-A PREROUTING -d www.example -j MARK --set-mark 1").unwrap();
    assert_eq!(rules(), ["12.0.0.1/32", "12.0.0.2/32"]);
    tell(&table, "-I PREROUTING 2 -d 12.0.0.3 -j MARK --set-mark 1").unwrap();
    tell(&table, "-I PREROUTING 4 -d 12.0.0.4 -j MARK --set-mark 1").unwrap();
    tell(&table, "-I PREROUTING -d 12.0.0.5 -j MARK --set-mark 1").unwrap();
    tell(&table, "-t mangle -D PREROUTING 2").unwrap();
    tell(&table, "-R PREROUTING 1 -d 12.0.0.6 -j MARK --set-mark 1").unwrap();
    assert_eq!(rules(), ["12.0.0.6/32", "12.0.0.3/32", "12.0.0.2/32", "12.0.0.4/32"]);
    let rest = "-d www.example -j MARK --set-mark 1";
    for (wrong, fault) in [
        ("-D PREROUTING 5".to_owned(), "Index of deletion too big."),
        ("-R PREROUTING 5 -d 12.0.0.1 -j MARK --set-mark 1".into(), "Index of replacement too"),
        ("-I PREROUTING 6 -d 12.0.0.1 -j MARK --set-mark 1".into(), "Index of insertion too"),
        ("-D PREROUTING 0".into(), "Invalid rule number `0'"),
        (format!("-D PREROUTING 1 {rest}"), "not both"),
        (format!("-R PREROUTING {rest}"), "number"),
        (format!("-R PREROUTING 1 {rest}"), "unique"),
        ("-P PREROUTING DROP".into(), "DROP"),
    ] {
        let error = tell(&table, &wrong).expect_err(&wrong);
        assert!(error.contains(fault), "{wrong}: {error}");
    }
    assert_eq!(rules().len(), 4);
}

#[test]
fn listings_may_be_short_and_numbered() {
    for (line, numbered) in
        [("-nL", false), ("-nvL PREROUTING", false), ("-L --line-numbers -n", true)]
    {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(
            parse_mark(&words, &mut Known),
            Ok(vec![MarkCommand::List(Listing { numbered, only: None })])
        );
    }
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let table = ServiceTable::new(1);
    for (line, fault) in [
        ("-A PREROUTING -j MARK", "--set-mark"),
        ("-A PREROUTING --set-mark 1", "-j MARK"),
        ("-t nat -A PREROUTING", "mangle"),
        ("-A FORWARD -j MARK --set-mark 1", "FORWARD"),
        ("-A PREROUTING --dport 80 -j MARK --set-mark 1", "-p tcp"),
        ("-A PREROUTING -p tcp --dport 90:80 -j MARK --set-mark 1", "90:80"),
        ("-A PREROUTING -p tcp --dport http -j MARK --set-mark 1", "http"),
        ("-A PREROUTING -d 12.0.0.0/255.0.255.0 -j MARK --set-mark 1", "255.0.255.0"),
        ("-A PREROUTING -d no.example -j MARK --set-mark 1", "no.example"),
        ("-A PREROUTING ! -j MARK --set-mark 1", "before `-j'"),
        ("! -A PREROUTING -j MARK --set-mark 1", "before `-A'"),
        ("-A PREROUTING ! ! -s 10.0.0.1 -j MARK --set-mark 1", "consecutive"),
        ("-A PREROUTING ! -s 10.0.0.1,10.0.0.2 -j MARK --set-mark 1", "! not allowed"),
        ("-A PREROUTING -j MARK ! --set-mark 1", "before `--set-mark'"),
        ("-A PREROUTING -j MARK --set-mark 1 !", "nothing follows"),
        ("-A PREROUTING ! -p all -j MARK --set-mark 1", "never match"),
        ("-A PREROUTING ! -d 0/0 -j MARK --set-mark 1", "0.0.0.0/0"),
        ("-A PREROUTING ! -p tcp --dport 80 -j MARK --set-mark 1", "-p tcp"),
        ("-A PREROUTING -p tcp -m udp --dport 80 -j MARK --set-mark 1", "`-m udp' needs"),
        ("-A PREROUTING -p udp --syn -j MARK --set-mark 1", "`-p tcp'"),
        ("-A PREROUTING -p tcp -m tcp --syn --tcp-flags ALL SYN -j MARK --set-mark 1", "Only one"),
        ("-A PREROUTING -p tcp --tcp-flags SYN -j MARK --set-mark 1", "Unknown TCP flag `-J'"),
        ("-A PREROUTING -p tcp --tcp-flags SYN,ECE SYN -j MARK --set-mark 1", "`ECE'"),
        ("-A PREROUTING -j MARK --set-mark 1 -p tcp --tcp-flags SYN", "requires two args"),
        ("-A PREROUTING -p tcp -m multiport --dports 1 --sports 2 -j MARK --set-mark 1", "again"),
        ("-A PREROUTING -p tcp -m multiport -j MARK --set-mark 1", "--dports"),
        ("-A PREROUTING -m mark -j MARK --set-mark 1", "--mark"),
        ("-A PREROUTING -m comment -j MARK --set-mark 1", "--comment"),
        ("-A PREROUTING -m conntrack --ctstate NEW -j MARK --set-mark 1", "leave it out"),
        ("-A PREROUTING -o eth0 -j MARK --set-mark 1", "Can't use -o"),
        ("-A PREROUTING -i '' -j MARK --set-mark 1", "Empty interface"),
        ("-A PREROUTING -j MARK --or-mark 1/2", "1/2"),
        ("-A PREROUTING -j MARK --set-mark 09", "`09'"),
        ("-A PREROUTING -j MARK --or-mark 1 --and-mark 2", "once"),
        ("-A PREROUTING -d 12.0.0.1 -D PREROUTING 1", "Cannot use -D with -A"),
        ("-d 12.0.0.1 -D PREROUTING 1", "Illegal option `-d'"),
        ("-d 12.0.0.1 -F", "Illegal option `-d'"),
        ("-S PREROUTING -p tcp", "Illegal option `-p'"),
        ("-N WEB", "PREROUTING"),
        ("-X WEB", "PREROUTING"),
        ("-C PREROUTING -j MARK --set-mark 1", "Bad rule"),
        ("-A PREROUTING -p nothing -j MARK --set-mark 1", "nothing"),
        ("-A PREROUTING -m state -j MARK --set-mark 1", "state"),
        ("-A PREROUTING -j MARK --set-mark x", "`x'"),
        ("-A PREROUTING -j MARK --set-mark 0x100000000", "0x100000000"),
        ("-A PREROUTING -s 10.0.0.0/8 -d ::1 -j MARK --set-mark 1", "family"),
        ("-D PREROUTING -j MARK --set-mark 1", "no such rule"),
    ] {
        let error = edit(&table, line).expect_err(line);
        assert!(error.contains(fault), "{line}: {error}");
        assert_eq!(table.epoch(), 0);
    }
}

/// Rules as iptables lists them, one a line.
///
/// **Source** — iptables 1.8.9, legacy and nft alike.
const LISTED: &str = "\
-A PREROUTING ! -s 10.0.0.1/32 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING ! -s 10.0.0.0/8 ! -d 1.2.3.4/32 ! -i eth0 ! -p tcp -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp ! --sport 1:2 ! --dport 80:90 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m multiport ! --dports 80,90 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m multiport --sports 80,81 -m multiport --dports 90,91:99 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p udp -m multiport ! --ports 80,81 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp --dport 80 ! --tcp-flags FIN,SYN,RST,ACK SYN -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp --tcp-flags SYN ACK -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -p tcp -m multiport --dports 1,2 -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j MARK --set-xmark 0x2/0xffffffff
-A PREROUTING -p tcp -m comment --comment x -m mark --mark 0x0 -m tcp --dport 80 -j MARK --set-xmark 0x2/0xffffffff
-A PREROUTING -m mark ! --mark 0x101/0xff -m mark --mark 0x2 -j MARK --set-xmark 0x2/0xffffffff
-A PREROUTING -p sctp -m sctp ! --dport 53 -j MARK --set-xmark 0x1/0xff
-A PREROUTING -p icmp -m comment --comment \"\" -j MARK --set-xmark 0x0/0x0
-A PREROUTING -p 200 -j MARK --set-xmark 0x10/0x0
";

#[test]
fn what_iptables_lists_is_taken_and_listed_alike() {
    let table = ServiceTable::new(1);
    for line in LISTED.lines() {
        edit(&table, line).unwrap();
        edit(&table, &line.replacen("-A", "-C", 1)).unwrap();
    }
    assert_eq!(list(&table).join("\n"), LISTED.trim_end());
    for line in LISTED.lines() {
        edit(&table, &line.replacen("-A", "-D", 1)).unwrap();
    }
    assert!(list(&table).is_empty());
}

#[test]
fn marks_are_set_as_the_options_of_the_target_say() {
    let table = ServiceTable::new(1);
    for (given, listed) in [
        ("--set-mark 0x110/0xff", "0x110/0x1ff"),
        ("--set-xmark 0x110/0xff", "0x110/0xff"),
        ("--set-mark 010", "0x8/0xffffffff"),
        ("--or-mark 0x10", "0x10/0x10"),
        ("--and-mark 0x10", "0x0/0xffffffef"),
        ("--xor-mark 0x10", "0x10/0x0"),
    ] {
        edit(&table, &format!("-A PREROUTING -j MARK {given}")).unwrap();
        assert_eq!(list(&table), [format!("-A PREROUTING -j MARK --set-xmark {listed}")]);
        edit(&table, "-t mangle -w -D PREROUTING 1").unwrap();
    }
}

/// What the kernel's own tool lists of the same words.
#[test]
fn the_hosts_iptables_lists_the_same() {
    sandbox::run("control::marks::tests::the_hosts_iptables_lists_the_same", || {
        let host = Namespace::new("host").unwrap();
        let iptables = |program: &str, words: &[&str]| host.command(program).args(words).output();
        let Ok(_) = iptables("iptables", &["-V"]) else {
            eprintln!("skipped: iptables is not installed");
            return;
        };
        let table = ServiceTable::new(1);
        for line in TYPED.lines() {
            edit(&table, line).unwrap();
            let words = shlex::split(line).unwrap();
            let words: Vec<_> =
                ["-t", "mangle"].into_iter().chain(words.iter().map(|w| &**w)).collect();
            let typed = iptables("iptables", &words).unwrap();
            assert!(typed.status.success(), "{line}: {typed:?}");
        }
        let listed = iptables("iptables", &["-t", "mangle", "-S", "PREROUTING"]).unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let ours = format!("-P PREROUTING ACCEPT\n{}\n", list(&table).join("\n"));
        assert_eq!(ours, listed);
    });
}

/// Rules as they are typed.
const TYPED: &str = "\
-A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK --set-mark 10
-A PREROUTING ! --source 10.1.2.3/8 ! --in-interface eth+ ! --protocol udp --jump MARK --or-mark 4
-A PREROUTING -p tcp --dport 80: ! --sport 5:1023 --syn -j MARK --set-mark 0x110/0xff
-A PREROUTING -p tcp -m multiport --dport 80,443 -j MARK --set-mark 010
-A PREROUTING -p tcp --dport 80 -m multiport --sports 1,2 --sport 5 -j MARK --and-mark 3
-A PREROUTING -p tcp -m multiport ! --dports 1,2 -m tcp --dport 80 -j MARK --xor-mark 3
-A PREROUTING -m multiport -p tcp --dports 1,2 ! --syn -j MARK --set-mark 2
-I PREROUTING 2 -p tcp --tcp-flags syn,ack,rst SYN -j MARK --set-mark 2
-A PREROUTING -p udp -m comment --comment \"a b\" -m mark ! --mark 1/3 --dport 53 -j MARK --set-mark 2
-A PREROUTING -p tcp -m tcp -m tcp --tcp-flags ALL ALL -j MARK --set-xmark 2/1
-A PREROUTING -s 10.0.0.1,10.0.0.2 -d 1.1.1.1,2.2.2.2 -p 47 -j MARK --set-mark 1
-R PREROUTING 3 -p 6 -i + --dport 0:65535 -j MARK --set-mark 1
-D PREROUTING 5
-D PREROUTING -s 10.0.0.2 -d 1.1.1.1 -p gre -j MARK --set-mark 1
-I PREROUTING -p sctp ! --dport 53 -j MARK --set-mark 1
";

/// A host whose packets come by eth0.
struct Eth0;

impl Network for Eth0 {
    fn mtu(&self, _: Addr) -> Option<usize> {
        None
    }

    fn address_towards(&self, _: Addr) -> Option<Addr> {
        None
    }

    fn owner(&self, _: Addr) -> Owner {
        Owner::Other
    }

    fn leaves_by(&self, _: Addr, _: &str) -> bool {
        false
    }

    fn arrived_by(&self, interface: &str) -> bool {
        interface == "eth0"
    }
}

/// The mark that a packet gets by rules.
fn mark_of(rules: &[&str], packet: &[u8]) -> u32 {
    let table = ServiceTable::new(1);
    for rule in rules {
        edit(&table, &format!("-A PREROUTING {rule}")).unwrap();
    }
    let headers = Headers::parse(packet).unwrap();
    table.snapshot().mark(Subject::new(&headers, packet), &Eth0)
}

/// A segment from 10.0.0.1 port 1024 to 12.0.0.1 port 80.
fn segment(flags: &str) -> Vec<u8> {
    let mut builder = PacketBuilder::ipv4([10, 0, 0, 1], [12, 0, 0, 1], 64).tcp(1024, 80, 1, 1024);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            'P' => builder.psh(),
            _ => builder.rst(),
        };
    }
    written(|bytes| builder.write(bytes, &[]).unwrap())
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

#[test]
fn opposites_of_matches_take_the_other_packets() {
    let is_marked =
        |words: &str| mark_of(&[&format!("{words} -j MARK --set-mark 1")], &segment("S"));
    for (words, opposite) in [
        ("-s 10.0.0.0/8", "! -s 10.0.0.0/8"),
        ("! -s 10.0.0.2", "-s 10.0.0.2"),
        ("-d 12.0.0.1", "! -d 12.0.0.1"),
        ("! -d 13.0.0.0/8", "-d 13.0.0.0/8"),
        ("-i eth0", "! -i eth0"),
        ("! -i eth1", "-i eth1"),
        ("-p tcp", "! -p tcp"),
        ("! -p udp", "-p udp"),
        ("-p tcp --dport 80", "-p tcp ! --dport 80"),
        ("-p tcp ! --dport 81:", "-p tcp --dport 81:"),
        ("-p tcp --sport 1024", "-p tcp ! --sport 1024"),
        ("-p tcp ! --sport :1023", "-p tcp --sport :1023"),
        ("-p tcp -m multiport --dports 7,80", "-p tcp -m multiport ! --dports 7,80"),
        ("-p tcp -m multiport ! --sports 7,80", "-p tcp -m multiport --sports 7,80"),
        ("-p tcp -m multiport --ports 1024", "-p tcp -m multiport ! --ports 1024"),
        ("-p tcp -m multiport --ports 80", "-p tcp -m multiport ! --ports 80"),
        ("-p tcp -m multiport ! --ports 7", "-p tcp -m multiport --ports 7"),
        ("-p tcp --syn", "-p tcp ! --syn"),
        ("-m mark --mark 0", "-m mark ! --mark 0"),
        ("-m mark ! --mark 1", "-m mark --mark 1"),
        // Every part of a rule has to be met.
        ("-p tcp ! -s 10.0.0.2 ! --dport 81 --syn", "-p tcp ! -s 10.0.0.1 ! --dport 81 --syn"),
        // Of the other family is neither a network nor its opposite.
        ("", "! -s 2001:db8::/32"),
        ("! -p icmp", "! -p tcp"),
    ] {
        assert_eq!((is_marked(words), is_marked(opposite)), (1, 0), "{words}; {opposite}");
    }
}

#[test]
fn flags_are_those_of_the_mask() {
    for (words, taken, others) in [
        ("--syn", &["S", "SP"][..], &["SA", "A", "SF", "SR", "R", ""][..]),
        ("! --syn", &["SA", "A", "R", ""], &["S", "SP"]),
        ("--tcp-flags SYN,ACK SYN,ACK", &["SA", "SAP"], &["S", "A", "R"]),
        ("--tcp-flags ALL NONE", &[""], &["S", "F", "P"]),
        ("--tcp-flags ALL FIN,PSH", &["FP"], &["F", "FPA"]),
        ("! --tcp-flags RST RST", &["S", "A", ""], &["R", "RA"]),
        ("--tcp-flags SYN ACK", &[], &["S", "A", "SA", ""]),
    ] {
        let rule = format!("-p tcp {words} -j MARK --set-mark 1");
        for (flags, mark) in
            taken.iter().map(|each| (each, 1)).chain(others.iter().map(|each| (each, 0)))
        {
            assert_eq!(mark_of(&[&rule], &segment(flags)), mark, "{words}: {flags}");
        }
    }
}

#[test]
fn later_rules_see_and_change_the_mark_of_earlier_ones() {
    let first = "-p tcp -j MARK --set-mark 0x11";
    for (second, mark) in [
        ("-m mark --mark 0x11 -j MARK --set-mark 2", 2),
        ("-m mark --mark 0x1/0xf -j MARK --or-mark 4", 0x15),
        ("-m mark --mark 0x11/0xf -j MARK --set-mark 2", 0x11),
        ("-m mark ! --mark 0 -j MARK --and-mark 1", 1),
        ("-m mark --mark 0 -j MARK --set-mark 2", 0x11),
        ("-j MARK --xor-mark 3", 0x12),
        ("-j MARK --set-xmark 0x2/0xf", 0x12),
    ] {
        assert_eq!(mark_of(&[first, second], &segment("S")), mark, "{second}");
    }
}

#[test]
fn ports_and_flags_are_asked_of_packets_that_have_them_only() {
    let ipv4 = |number| Ipv4Header::new(0, 64, number, [10, 0, 0, 1], [12, 0, 0, 1]).unwrap();
    let later = |number: IpNumber| {
        let mut header = ipv4(number);
        header.set_payload_len(8).unwrap();
        header.fragment_offset = 185.try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        written(|bytes| bytes.extend([&header.to_bytes()[..], &[0; 8]].concat()))
    };
    for words in ["! --dport 80", "--dport 0:1", "! --syn", "-m tcp", "-m multiport ! --ports 80"] {
        let rule = format!("-p tcp {words} -j MARK --set-mark 1");
        assert_eq!(mark_of(&[&rule], &later(IpNumber::TCP)), 0, "{words}");
    }
    assert_eq!(mark_of(&["-p tcp -j MARK --set-mark 1"], &later(IpNumber::TCP)), 1);
    assert_eq!(mark_of(&["! -p tcp -j MARK --set-mark 1"], &later(IpNumber::UDP)), 1);
}
