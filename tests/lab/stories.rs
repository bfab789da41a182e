//! Every lab keeps its promises, for root and for a user without privileges, and leaves nothing.

use std::os::unix::process::CommandExt;
use std::process::Output;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{Lab, OwnCopy, assert_all_gone, needs_namespaces, run, ulvs};

/// Has a lab told to both kinds of users. Returns what root, if this is root, was shown.
fn told(lab: &[&str]) -> String {
    let output = run(ulvs().arg("lab").args(lab));
    if geteuid().is_root() {
        promises_kept(&told_unprivileged(lab));
    }
    promises_kept(&output)
}

/// Has a lab told to a user without a home, who may not look where this was built.
fn told_unprivileged(lab: &[&str]) -> Output {
    let program = OwnCopy::new();
    let mut command = std::process::Command::new(&program.0);
    command.arg("lab").args(lab).uid(65534).gid(65534).env_remove("HOME").current_dir("/");
    run(&mut command)
}

fn promises_kept(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{complaint}");
    assert!(said.contains("\nVerdict\n  ok  "), "{said}");
    assert!(!said.contains("  NO  "), "{said}");
    // A command that is to be copied must not be cut.
    let fits = |line: &str| line.starts_with("director# ") || line.chars().count() <= 100;
    assert!(said.lines().all(fits), "{said}");
    assert!(!said.contains('\x1b'), "no colours where there is no terminal: {said}");
    said
}

/// Which pages clients got, in their order, in the parts whose heading contains `part`.
fn pages<'a>(said: &'a str, part: &str) -> Vec<&'a str> {
    let parts = said.split("\n\n").filter(|text| text.lines().next().unwrap_or("").contains(part));
    let is_turn = |line: &&str| {
        let turn = line.split_ascii_whitespace().next().unwrap_or_default();
        line.starts_with("  ") && turn.parse::<u32>().is_ok()
    };
    let turns = parts.flat_map(|text| text.lines().filter(is_turn));
    turns.map(|line| line[7..].split("  ").next().unwrap_or_default().trim()).collect()
}

/// Whether these commands were shown as typed on the director, in this order.
fn typed(said: &str, commands: &[&str]) -> bool {
    let mut lines = said.lines();
    commands.iter().all(|command| lines.any(|line| line == format!("director# {command}")))
}

#[test]
fn the_nat_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["nat"]);
    let published = [
        "ipvsadm -C",
        "ipvsadm -A -t 12.0.0.1:80 -s rr",
        "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:80 -m",
        "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.120:80 -m",
    ];
    assert!(typed(&said, &published), "{said}");
    let turns = ["this is benet web", "this is accp web"];
    assert_eq!(pages(&said, "fetches"), turns.repeat(3), "{said}");
}

#[test]
fn the_ipv6_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["ipv6"]);
    let commands = [
        "ipvsadm -A -t [2001:db8:12::1]:80 -s rr",
        "ipvsadm -a -t [2001:db8:12::1]:80 -r [2001:db8:200::110]:80 -m",
        "ipvsadm -a -t [2001:db8:12::1]:80 -r [2001:db8:200::120]:80 -m",
    ];
    assert!(typed(&said, &commands), "{said}");
    assert!(said.contains("  -> [2001:db8:200::110]:80       Masq    1"), "{said}");
    let turns = ["this is benet web", "this is accp web"];
    assert_eq!(pages(&said, "fetches http"), turns.repeat(3), "{said}");
    assert!(said.contains("ok  client has found 2001:db8:12::1 at the director's link"), "{said}");
    assert!(said.contains("ok  2001:db8:200::1 answers real1's ping"), "{said}");
    transferred(&said);
}

#[test]
fn the_weights_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["weights"]);
    let published = [
        "ipvsadm -A -t 192.168.1.109:80 -s rr",
        "ipvsadm -E -t 192.168.1.109:80 -s wrr",
        "ipvsadm -e -t 192.168.1.109:80 -r 192.168.0.112:80 -m -w 1",
        "ipvsadm -e -t 192.168.1.109:80 -r 192.168.0.113:80 -m -w 2",
    ];
    assert!(typed(&said, &published), "{said}");
    let (one, two) = ("this is rs1", "this is rs2");
    assert_eq!(pages(&said, "fetches http://192.168.1.109/ 4 times"), [two, one, two, one]);
    assert_eq!(pages(&said, "fetches http://192.168.1.109/ 6 times"), [one, two, two].repeat(2));
    assert_eq!(pages(&said, "fetches http://192.168.1.109/ 3 times"), [two; 3]);
}

#[test]
fn the_persistence_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["persistence"]);
    assert!(typed(&said, &["ipvsadm -A -t 10.1.1.35:80 -s rr -p 10", "ipvsadm -lnc"]), "{said}");
    assert_eq!(pages(&said, "The client fetches"), ["this is rs2"; 5], "{said}");
    assert_eq!(pages(&said, "client2 fetches"), ["this is rs1"; 4], "{said}");
    let templates = said.lines().filter(|line| line.contains(" 10.1.1.11:0 "));
    let templates: Vec<String> = templates.map(|line| line.replace(' ', "")).collect();
    let is_renewed = |line: &&String| {
        line.starts_with("TCP00:5") || line.starts_with("TCP01:00") && line.contains("ASSURED")
    };
    assert!(templates.iter().any(|line| is_renewed(&line)), "{said}");
    assert!(templates.iter().any(|line| line.contains("NONE") && line.contains("3306")), "{said}");
}

#[test]
fn the_fwmark_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["fwmark"]);
    let mark = "ulvs mark -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport";
    let published = [
        &format!("{mark} 80 -j MARK --set-mark 10"),
        &format!("{mark} 3306 -j MARK --set-mark 10"),
        "ipvsadm -A -f 10 -s rr",
        "ipvsadm -a -f 10 -r 192.168.122.128 -g",
        "ipvsadm -a -f 10 -r 192.168.122.129 -g",
    ];
    assert!(typed(&said, &published), "{said}");
    assert!(said.contains("\nFWM  10 rr\n  -> 192.168.122.128:0 "), "{said}");
    let (one, two) = ("this is rs1", "this is rs2");
    assert_eq!(pages(&said, "The client fetches"), [two, one, two], "{said}");
    assert_eq!(pages(&said, "takes the next turn"), ["real1", "real2", "real1"], "{said}");
    let together = pages(&said, "should reach the same server");
    assert_eq!(together, [two, two, "real2", "real2"], "{said}");
}

#[test]
fn the_dr_labs_keep_their_promises() {
    needs_namespaces!();
    let (one, two) = ("this is rs1", "this is rs2");
    let said = told(&["dr"]);
    let published = [
        "ipvsadm -A -t 192.168.0.110:80 -s rr",
        "ipvsadm -a -t 192.168.0.110:80 -r 192.168.0.112:80 -g -w 1",
        "ipvsadm -a -t 192.168.0.110:80 -r 192.168.0.113:80 -g -w 1",
    ];
    assert!(typed(&said, &published), "{said}");
    let turns = [[two, one].repeat(3), [two, one, one].repeat(2)].concat();
    assert_eq!(pages(&said, "The client fetches"), turns, "{said}");
    direct(&said);

    let said = told(&["dr", "--network", "172.16.1"]);
    let published = [
        "ipvsadm -A -t 172.16.1.100:80 -s wlc",
        "ipvsadm -a -t 172.16.1.100:80 -r 172.16.1.10 -w 2 -g",
        "ipvsadm -a -t 172.16.1.100:80 -r 172.16.1.20 -w 2 -g",
    ];
    assert!(typed(&said, &published), "{said}");
    assert_eq!(pages(&said, "The client fetches"), [two, one].repeat(3), "{said}");
    direct(&said);

    let said = told(&["dr-router"]);
    assert!(said.contains("The client fetches http://10.1.1.35/ 6 times"), "{said}");
    assert_eq!(pages(&said, "The client fetches"), [two, one].repeat(3), "{said}");
    direct(&said);
}

/// Replies came from the real servers, and long transfers arrived whole.
fn direct(said: &str) {
    let at_director = said.lines().find(|line| line.starts_with("  to the director came"));
    assert!(at_director.is_some_and(|line| line.contains(", and 0 from ")), "{said}");
    transferred(said);
    assert!(said.contains("arp_ignore 1, arp_announce 2"), "{said}");
}

/// Both ends of two long transfers have the same sum.
fn transferred(said: &str) {
    let sums = said.lines().filter_map(|line| line.trim().strip_prefix("sha256 "));
    let sums: Vec<&str> = sums.filter_map(|rest| rest.split(' ').next()).collect();
    assert!(sums.len() == 4 && sums[0] == sums[1] && sums[2] == sums[3], "{said}");
    assert_eq!(sums[0].len(), 64, "{said}");
}

#[test]
fn the_tunnel_labs_keep_their_promises() {
    needs_namespaces!();
    let (one, two) = ("this is rs1", "this is rs2");
    for (kind, outer) in [("ipip", " ipip "), ("gre", " gre "), ("gue", ":6080 udp gue ")] {
        let said = told(&["tun", "--type", kind]);
        assert_eq!(pages(&said, "The client fetches"), [two, one].repeat(3), "{said}");
        let first = said
            .lines()
            .find(|line| line.starts_with("      172.16.1.200") && line.contains(outer));
        assert!(first.is_some_and(|line| line.contains("> 172.16.1.100:80 tcp S")), "{said}");
        transferred(&said);
    }
}

#[test]
fn the_fullnat_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["fullnat"]);
    let published = [
        "ipvsadm -A -t 172.16.1.100:80 -s rr --local-address 172.16.1.210,172.16.1.211",
        "ipvsadm -a -t 172.16.1.100:80 -r 192.168.10.11:80 --fullnat",
        "ipvsadm -a -t 172.16.1.100:80 -r 10.20.0.12:8080 --fullnat",
        "ipvsadm -e -t 172.16.1.100:80 -r 192.168.10.11:80 --fullnat --client-address proxy-v2",
    ];
    assert!(typed(&said, &published), "{said}");
    let turns = ["this is real2", "this is real1"];
    assert_eq!(pages(&said, "The client fetches"), turns.repeat(3), "{said}");
    let to_servers = said.lines().filter(|line| line.starts_with("  to real"));
    assert!(to_servers.clone().all(|line| line.ends_with(", and 0 from 12.0.0.12")), "{said}");
    assert_eq!(to_servers.count(), 2, "{said}");
    let told = said.split("They can be told").nth(1).unwrap();
    assert!(told.contains("\n  you are 12.0.0.12:"), "{said}");
    assert!(told.contains("\n  in the packets to real2: option 254, 12.0.0.12:"), "{said}");
    transferred(&said);
}

#[test]
fn the_ftp_lab_keeps_its_promises() {
    needs_namespaces!();
    let said = told(&["ftp"]);
    let published = [
        "ipvsadm -A -t 12.0.0.100:21 -s rr",
        "ipvsadm -a -t 12.0.0.100:21 -r 192.168.200.110:21 -m",
        "ipvsadm -a -t 12.0.0.100:21 -r 192.168.200.120:21 -m",
    ];
    assert!(typed(&said, &published), "{said}");
    assert_eq!(pages(&said, "The client fetches"), ["real2", "real1"].repeat(2), "{said}");
    let line = |beginning: &str| {
        said.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(beginning)).unwrap()
    };
    let (own, heard) = (line("real2 says:"), line("the client hears:"));
    assert!(own.contains(" (192,168,200,120,") && heard.contains(" (12,0,0,100,"), "{said}");
    assert!(
        line("real2 connects:").trim().starts_with("192.168.200.120:20 > 12.0.0.12:"),
        "{said}"
    );
    assert!(line("the client sees it come:").starts_with(" 12.0.0.100:20 > 12.0.0.12:"), "{said}");
    let [passive, active] = ["100 MiB each way, passive", "100 MiB each way, active"]
        .map(|part| said.split("\n\n").find(|text| text.starts_with(part)).unwrap());
    transferred(passive);
    transferred(active);
}

#[test]
fn an_ftp_client_that_is_installed_gets_files_by_every_mode() {
    needs_namespaces!();
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return;
    }
    let lab = Lab::start(&["ftp", "--requests", "1"]);
    for mode in
        [&["--disable-epsv"][..], &[], &["--ftp-port", "-", "--disable-eprt"], &["--ftp-port", "-"]]
    {
        let curl = ["curl", "-sS", "--max-time", "30"];
        let fetch = |name: &str| {
            let url = format!("ftp://12.0.0.100/{name}");
            lab.exec("client", &[&curl[..], mode, &[&url]].concat())
        };
        let name = fetch("hostname");
        let complaint = String::from_utf8_lossy(&name.stderr);
        assert!(name.stdout == b"real1\n" || name.stdout == b"real2\n", "{mode:?}: {complaint}");
        assert_eq!(fetch("3000000").stdout.len(), 3_000_000, "{mode:?}");
    }
}

#[test]
fn labs_run_where_proc_is_read_only_as_in_containers() {
    needs_namespaces!();
    if !geteuid().is_root() {
        println!("skipped: only root can mount /proc/sys read-only");
        return;
    }
    if std::process::Command::new("unshare").arg("--version").output().is_err() {
        println!("skipped: unshare is not installed");
        return;
    }
    let program = OwnCopy::new();
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    for lab in ["nat", "dr"] {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&program.0).args(["lab", lab]);
        promises_kept(&run(command.current_dir("/")));
    }
}

#[test]
fn nothing_is_left_of_any_lab_that_is_killed() {
    needs_namespaces!();
    for lab in
        ["ipv6", "weights", "persistence", "fwmark", "dr", "dr-router", "tun", "fullnat", "ftp"]
    {
        let mut lab = Lab::start(&[lab, "--requests", "2"]);
        let processes = lab.processes();
        kill(Pid::from_raw(lab.keeper.id() as i32), Signal::SIGKILL).unwrap();
        assert!(!lab.end().0.success());
        assert_all_gone(&processes);
    }
}
