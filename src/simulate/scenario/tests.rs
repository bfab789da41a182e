use std::path::PathBuf;

use super::*;

#[test]
fn every_recorded_scenario_is_understood() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs");
    let mut count = 0;
    for group in std::fs::read_dir(corpus).unwrap() {
        for file in std::fs::read_dir(group.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "scn") {
                let text = std::fs::read_to_string(&path).unwrap();
                parse_scenario(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                count += 1;
            }
        }
    }
    assert!(count >= 300, "only {count} scenarios found");
}

fn flows_of(line: &str) -> Vec<String> {
    let steps = parse_scenario(line).unwrap();
    let Action::Flows(_, flows) = &steps[0].action else { panic!("{line} is no flow step") };
    let text = |(addr, port): (IpAddr, u16)| format!("{addr}:{port}");
    flows.iter().map(|flow| format!("{} {}", text(flow.client), text(flow.virtual_end))).collect()
}

#[test]
fn the_last_part_of_a_flow_turns_fastest() {
    assert_eq!(
        flows_of("open tcp 12.0.0.2-12.0.0.3:1-2 12.0.0.1:80,81"),
        [
            "12.0.0.2:1 12.0.0.1:80",
            "12.0.0.2:1 12.0.0.1:81",
            "12.0.0.2:2 12.0.0.1:80",
            "12.0.0.2:2 12.0.0.1:81",
            "12.0.0.3:1 12.0.0.1:80",
            "12.0.0.3:1 12.0.0.1:81",
            "12.0.0.3:2 12.0.0.1:80",
            "12.0.0.3:2 12.0.0.1:81",
        ]
    );
    assert_eq!(
        flows_of("open udp [2001:db8:12::2-2001:db8:12::3]:9 [::1]:53"),
        ["2001:db8:12::2:9 ::1:53", "2001:db8:12::3:9 ::1:53"]
    );
}

#[test]
fn input_belongs_to_the_command_above_it() {
    let steps =
        parse_scenario("# rules\n\nipvsadm -R\n  -A -t 12.0.0.1:80\n\t-C  \nconns\n").unwrap();
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[2].stdin, ["-A -t 12.0.0.1:80", "-C"]);
}

#[test]
fn bad_lines_are_told_with_their_number_and_reason() {
    for (line, why) in [
        ("fly away", "unknown verb 'fly'"),
        ("  stray", STRAY_INPUT),
        ("sleep long", "expected a number, not 'long'"),
        ("sleep -1", "'-1' is no time from 0 to 8640000 seconds"),
        ("trace maybe", "expected on or off, not 'maybe'"),
        ("conns now", "unexpected 'now'"),
        ("sysctl a b", "expected NAME or NAME=VALUE"),
        ("send up 12.0.0.2 > 12.0.0.1 p9", "unknown link 'up'"),
        ("send out 12.0.0.2 > 12.0.0.1 p999", "unknown protocol 'p999'"),
        (
            "send out 12.0.0.2:1 > 12.0.0.1:1 udp len=1473",
            "the packet takes 1501 bytes, more than a link carries; use fragments",
        ),
        (
            "fragments out 9 12.0.0.2 > 12.0.0.1 p9",
            "expected LINK SIZE [order=N,N...] PACKET, SIZE a multiple of 8",
        ),
        (
            "fragments out 8 order=1,4 12.0.0.2 > 12.0.0.1 p9 len=24",
            "there is no fragment 4, only 1 to 3",
        ),
        ("reply server", "expected a host such as rs110, c2 or gw, not 'server'"),
        ("error c2 three", "expected HOST TYPE/CODE [FIELD=VALUE]..."),
        ("open tcp 12.0.0.2 12.0.0.1:80", "expected ADDRESS:PORT, not '12.0.0.2'"),
        ("open tcp 12.0.0.2:1-x 12.0.0.1:80", "bad port range '1-x'"),
        ("open tcp 12.0.0.9-12.0.0.2:1 12.0.0.1:80", "bad address '12.0.0.9-12.0.0.2'"),
        ("open tcp 12.0.0.2:1 [::1]:80", "client and virtual address differ in address family"),
        ("close client udp 12.0.0.2:1 12.0.0.1:80", "udp flows have no end"),
        (
            "vip ::-ffff::",
            "the line stands for 18446744073709551615 flows or addresses, more than 1048576",
        ),
        ("mark tcp 12.0.0.1:http 1", "expected PROTOCOL PREFIX[:PORT] VALUE"),
        ("connect tcp 12.0.0.1:1", "expected tcp|udp SOURCE:PORT DESTINATION:PORT"),
    ] {
        let error = parse_scenario(&format!("# first\n{line}\n")).unwrap_err();
        assert_eq!(error, ScenarioError { line: 2, why: why.into() }, "{line}");
    }
}
