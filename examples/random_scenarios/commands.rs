//! Random lines of ipvsadm: sensible ones, and such with options and values that do not fit.

use super::dice::Dice;

/// The lines of a scenario.
pub fn lines(dice: &mut Dice) -> Vec<String> {
    let count = dice.number(25, 50);
    let mut lines: Vec<String> = Vec::new();
    for _ in 0..count {
        if dice.chance(6) {
            lines.push("ipvsadm -R".into());
            for _ in 0..dice.number(1, 5) {
                let line = command(dice);
                let line = if dice.chance(80) { line.replacen("ipvsadm ", "", 1) } else { line };
                lines.push(format!("    {line}"));
            }
            continue;
        }
        lines.push(command(dice));
        if dice.chance(20) {
            lines.push("ipvsadm -Sn".into());
        }
    }
    lines.push("ipvsadm -Ln".into());
    lines.push("ipvsadm -Ln --thresholds".into());
    lines
}

/// A command with options that mostly go with it, and now and then something more or less.
fn command(dice: &mut Dice) -> String {
    let mut words = match dice.number(0, 19) {
        0..=4 => add_or_edit(dice, "-A"),
        5..=6 => add_or_edit(dice, "-E"),
        7 => with_service(dice, "-D"),
        8..=11 => server(dice, "-a"),
        12..=14 => server(dice, "-e"),
        15 => delete_server(dice),
        16..=17 => list(dice),
        18 => dice.one(&OTHERS).split(' ').map(str::to_string).collect(),
        _ => with_service(dice, "-Z"),
    };
    if dice.chance(15) {
        let at = dice.number(1, words.len() as u64) as usize;
        words.insert(at, option(dice));
    }
    if dice.chance(8) {
        let at = dice.index(words.len());
        words.remove(at);
    }
    if dice.chance(5) {
        let (one, other) = (dice.index(words.len()), dice.index(words.len()));
        words.swap(one, other);
    }
    words.iter_mut().for_each(|word| {
        if dice.chance(8) {
            *word = long_form(word);
        }
    });
    format!("ipvsadm {}", words.join(" ")).trim_end().to_string()
}

const OTHERS: [&str; 24] = [
    "-C",
    "-Z",
    "-S",
    "-Sn",
    "--set 10 20 30",
    "--set 0 0 0",
    "--set 1 2",
    "--set -1 5 5",
    "--set 5 x 5",
    "--set 2147484 1 1",
    "-Ln --timeout",
    "-Ln --daemon",
    "-h x",
    "-v",
    "--set 1 2 3 4",
    "--set 99999999 1 1",
    "--start-daemon master --mcast-interface in --syncid 7",
    "--start-daemon backup --mcast-interface out",
    "--start-daemon master",
    "--start-daemon slave",
    "--stop-daemon master",
    "--stop-daemon backup --syncid 3",
    "-L --daemon",
    "-Ln --tun-info",
];

fn long_form(word: &str) -> String {
    let long = LONG.iter().find(|(short, _)| *short == word);
    long.map_or_else(|| word.to_string(), |(_, long)| (*long).to_string())
}

const LONG: [(&str, &str); 22] = [
    ("-A", "--add-service"),
    ("-E", "--edit-service"),
    ("-D", "--delete-service"),
    ("-a", "--add-server"),
    ("-e", "--edit-server"),
    ("-d", "--delete-server"),
    ("-L", "--list"),
    ("-Z", "--zero"),
    ("-t", "--tcp-service"),
    ("-u", "--udp-service"),
    ("-f", "--fwmark-service"),
    ("-s", "--scheduler"),
    ("-p", "--persistent"),
    ("-M", "--netmask"),
    ("-r", "--real-server"),
    ("-g", "--gatewaying"),
    ("-m", "--masquerading"),
    ("-w", "--weight"),
    ("-x", "--u-threshold"),
    ("-y", "--l-threshold"),
    ("-o", "--ops"),
    ("-b", "--sched-flags"),
];

fn service(dice: &mut Dice) -> Vec<String> {
    let usual = dice.chance(80);
    let (option, value) = match dice.number(0, 9) {
        0..=5 => ("-t", if usual { dice.word(SERVICES) } else { dice.word(ODD_SERVICES) }),
        6 => ("-u", if usual { dice.word(SERVICES) } else { dice.word(ODD_SERVICES) }),
        7 => ("--sctp-service", if usual { dice.word(SERVICES) } else { dice.word(ODD_SERVICES) }),
        _ => ("-f", if usual { dice.word("1 2 2147483648") } else { dice.word(ODD_MARKS) }),
    };
    vec![option.to_string(), value]
}

const SERVICES: &str = "12.0.0.1:80 12.0.0.1:80 12.0.0.1:80 12.0.0.1:443 shop.example:http [2001:db8:12::1]:80 12.0.0.1:0 12.0.0.1:53";
const ODD_SERVICES: &str = "12.0.0.1 12.0.0.1: 12.0.0.1:65536 12.0.0.1:-1 0.0.0.0:80 12.0.0:80 \
    12.0.0.1:http 12.0.0.1:gopher nobody.example:80 2001:db8:12::1:80 [2001:db8:12::1] [2001:db8:12::1]:http \
    [2001:db8:12::1 [::]:80 [::1]:80 :80 12.0.0.1:80:80 12.0.0.256:80 224.0.0.1:80 255.255.255.255:80 \
    127.0.0.1:80 012.0.0.1:80 12.1:80 12.0.0.1:+80 12.0.0.1:080 12.0.0.1:0x50 [12.0.0.1]:80 [ff02::1]:80";
const ODD_MARKS: &str = "0 -1 4294967295 4294967296 x 1x 0x10 010 +3";

fn with_service(dice: &mut Dice, command: &str) -> Vec<String> {
    [vec![command.to_string()], service(dice)].concat()
}

fn add_or_edit(dice: &mut Dice, command: &str) -> Vec<String> {
    let mut words = with_service(dice, command);
    let mut add = |percent: u64, option: &str, usual: &str, odd: &str, dice: &mut Dice| {
        if dice.chance(percent) {
            words.push(option.to_string());
            let values = if dice.chance(85) { usual } else { odd };
            if !values.is_empty() {
                words.push(dice.word(values));
            }
        }
    };
    add(75, "-s", "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh", "RR xx wlcc none -", dice);
    add(30, "-p", "1 60 360 86400", "0 -1 2678400 2678401 x 60x 1.5 999999999999", dice);
    add(
        15,
        "-M",
        "255.255.255.0 255.255.0.0 24 64 128",
        "255.0.255.0 0 33 129 0.0.0.0 x 255.255.255.255 300.0.0.0",
        dice,
    );
    add(10, "-o", "", "", dice);
    add(
        20,
        "-b",
        "sh-port sh-fallback mh-port mh-fallback flag-1 flag-2 flag-3",
        "sh-fallback,sh-port flag-1,flag-3 sh-port,mh-port x sh-port, ,sh-port flag-4",
        dice,
    );
    add(10, "-6", "", "", dice);
    words
}

fn server(dice: &mut Dice, command: &str) -> Vec<String> {
    let mut words = with_service(dice, command);
    words.push("-r".into());
    let usual = "192.168.200.110 192.168.200.120 192.168.200.110:8080 192.168.200.120:80 www1.example:http [2001:db8:200::110] [2001:db8:200::110]:8080";
    let odd = "12.0.0.1 127.0.0.1 0.0.0.0 192.168.200.110:0 192.168.200.110:70000 224.0.0.1 255.255.255.255 \
        12.0.0.255 nobody.example 2001:db8:200::110 [fe80::1]:80 [::1]:80 [ff02::1]:80 192.168.200.110:x 192.168.200";
    words.push(if dice.chance(85) { dice.word(usual) } else { dice.word(odd) });
    if dice.chance(75) {
        words.push(dice.word("-m -g -m -g --masquerading --gatewaying -i -i --ipip"));
    }
    if dice.chance(15) {
        words.extend(tunnel(dice));
    }
    let mut add = |percent: u64, option: &str, usual: &str, odd: &str, dice: &mut Dice| {
        if dice.chance(percent) {
            words.push(option.to_string());
            words.push(if dice.chance(85) { dice.word(usual) } else { dice.word(odd) });
        }
    };
    add(50, "-w", "0 1 2 100 65535", "-1 65536 2147483647 2147483648 4294967295 x 1x 1.5", dice);
    add(20, "-x", "0 1 5 100", "-1 65536 4294967295 4294967296 x", dice);
    add(20, "-y", "0 1 4 99", "-1 65536 4294967296 x", dice);
    words
}

/// Options of tunnels, some of which do not fit each other.
fn tunnel(dice: &mut Dice) -> Vec<String> {
    let all = [
        "--tun-type ipip",
        "--tun-type gre",
        "--tun-type gre --tun-csum",
        "--tun-type gue --tun-port 6080",
        "--tun-type gue --tun-port 6080 --tun-remcsum",
        "--tun-type gue --tun-port 6080 --tun-nocsum",
        "--tun-type gue",
        "--tun-type vxlan",
        "--tun-port 6080",
        "--tun-type gue --tun-port 0",
        "--tun-type gue --tun-port 65536",
        "--tun-type=gre",
        "--tun-csum",
        "--tun-csum --tun-nocsum",
    ];
    dice.one(&all).split(' ').map(str::to_string).collect()
}

fn delete_server(dice: &mut Dice) -> Vec<String> {
    let mut words = server(dice, "-d");
    if dice.chance(70) {
        words.truncate(5);
    }
    words
}

fn list(dice: &mut Dice) -> Vec<String> {
    let mut words = vec![dice.word("-L -Ln -l -ln --list")];
    for _ in 0..dice.number(0, 3) {
        words.push(dice.word(
            "-n --numeric --stats --rate --exact --thresholds --persistent-conn --sort --nosort --timeout --daemon -c -6 --tun-info",
        ));
    }
    if dice.chance(25) {
        words.extend(service(dice));
    }
    words
}

/// An option that may not fit the command.
fn option(dice: &mut Dice) -> String {
    dice.word(
        "-A -E -D -a -e -d -L -C -Z -S -R -c -n -m -g -w -w1 -x -x1 -y -y1 -p -p60 -M -o -b -s -srr -r -t -u -f -f1 \
         --stats --rate --exact --thresholds --sort --nosort --persistent-conn --timeout --daemon --set --weight=3 \
         --persistent=60 --pe --syncid --mcast-interface --tun-type --wrong -X - -- word 12.0.0.1:80",
    )
}
