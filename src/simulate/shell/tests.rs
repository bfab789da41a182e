use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Output, System, run};

/// A host with a few files, whose only program says how it was called.
#[derive(Default)]
struct Host {
    files: HashMap<String, String>,
    slept: Duration,
    /// How long datagrams were, and how many.
    sent: Vec<(SocketAddr, usize, usize)>,
}

impl System for Host {
    fn run(&mut self, words: &[String], stdin: &str) -> Option<Output> {
        let stdout = format!("{} {}\n", words[1..].join("|"), stdin.len());
        (words[0] == "say").then(|| Output { stdout, ..Output::default() })
    }

    fn read(&mut self, path: &str) -> Result<String, &'static str> {
        self.files.get(path).cloned().ok_or("No such file or directory")
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), &'static str> {
        self.files.insert(path.into(), text.into());
        Ok(())
    }

    fn list(&mut self, path: &str) -> Option<Vec<String>> {
        let names = ["drop_entry", "drop_packet", "secure_tcp"];
        (path == "/settings").then(|| names.map(String::from).to_vec())
    }

    fn sleep(&mut self, time: Duration) {
        self.slept += time;
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8], times: usize) {
        self.sent.push((to, payload.len(), times));
    }
}

fn host() -> Host {
    let names = ["drop_entry", "drop_packet", "secure_tcp"];
    let files =
        names.iter().zip(1..).map(|(name, n)| (format!("/settings/{name}"), format!("{n}\n")));
    Host { files: files.collect(), ..Host::default() }
}

fn output(line: &str) -> (String, String, i32) {
    let Output { stdout, stderr, code } = run(line, "c\na\nb\n", &mut host());
    (stdout, stderr, code)
}

fn shown(line: &str) -> String {
    let (stdout, stderr, code) = output(line);
    assert_eq!((stderr.as_str(), code), ("", 0), "{line}");
    stdout
}

#[test]
fn words_are_expanded_and_split() {
    assert_eq!(shown("say a 'b c' \"d  e\" f\\ g"), "a|b c|d  e|f g 6\n");
    assert_eq!(shown("x='1  2'; say $x \"$x\" ${x}3"), "1|2|1  2|1|23 6\n");
    assert_eq!(shown("say $((1 + 2 * 3)) $(echo a; echo b) `echo c`"), "7|a|b|c 6\n");
    assert_eq!(shown("cd /settings; say drop_* no*"), "drop_entry|drop_packet|no* 6\n");
}

#[test]
fn lists_pipes_loops_and_choices_run_in_order() {
    assert_eq!(shown("false || echo one && echo two; ! false && echo three"), "one\ntwo\nthree\n");
    assert_eq!(shown("sort | head -n 2 | tail -1"), "b\n");
    assert_eq!(
        shown(
            "cd /settings; for name in *; do [ $name = secure_tcp ] || echo \"$name = $(cat $name)\"; done"
        ),
        "drop_entry = 1\ndrop_packet = 2\n"
    );
    assert_eq!(shown("if [ 2 -gt 1 ]; then echo yes; else echo no; fi"), "yes\n");
    assert_eq!(shown("{ echo b; echo a; } | sort; (echo c)"), "a\nb\nc\n");
}

#[test]
fn loops_end_when_their_condition_says_so() {
    assert_eq!(shown("i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done"), "0\n1\n2\n");
    assert_eq!(shown("until [ \"$i\" = xx ]; do i=x$i; done; echo $i"), "xx\n");
    let read = "echo 'a b  c' > f; echo d >> f; while read -r x y; do echo \"$y:$x\"; done < f";
    assert_eq!(shown(read), "b  c:a\n:d\n");
    assert_eq!(shown("while read x; do echo $x; exit 0; done; echo never"), "c\n");
    let (_, _, code) = output("while true; do false; done");
    assert_eq!(code, 1, "a loop without an end is ended");
}

#[test]
fn what_a_subshell_changes_is_forgotten() {
    assert_eq!(shown("x=1; (x=2; cd /settings; exit 3); echo $? $x"), "3 1\n");
    assert_eq!(shown("x=1; echo 2 | read x; echo $x"), "1\n");
}

#[test]
fn input_and_output_are_redirected() {
    assert_eq!(shown("echo x > f; echo y >> f; wc -l f; cat < f"), "2 f\nx\ny\n");
    assert_eq!(output("cat nothing 2> /dev/null"), (String::new(), String::new(), 1));
    assert_eq!(output("cat nothing 2>&1 | wc -l"), ("1\n".into(), String::new(), 0));
}

#[test]
fn filters_do_what_their_names_say() {
    assert_eq!(shown("printf '%s=%s\\n' a 1 b 2"), "a=1\nb=2\n");
    assert_eq!(shown("grep -c '[ab]'"), "2\n");
    assert_eq!(shown("echo 'TCP 1:2   899' | sed 's/ *[0-9]*$//'"), "TCP 1:2\n");
    assert_eq!(shown("sed -n 2,3p"), "a\nb\n");
    assert_eq!(shown("echo a/b | sed 's/a/x/; s/\\//-/g; 1d'"), "");
    assert_eq!(shown("echo a/b | sed -e 's/a/x/' -e 's,/,[&],'"), "x[/]b\n");
    assert_eq!(shown("echo 'a b c' | awk '{print $3, $1}'"), "c a\n");
    assert_eq!(shown("echo a:b:c | cut -d: -f2-"), "b:c\n");
    assert_eq!(shown("echo 'aa  b' | tr -s ' ' | tr a-c A-C; echo a1b | tr -d 0-9"), "AA B\nab\n");
    assert_eq!(
        shown("echo a | tee f g; cat f g; printf -- '-%s\\n' x | grep -- -x"),
        "a\na\na\n-x\n"
    );
    assert_eq!(shown("cat < /dev/null; egrep 'a|b'"), "a\nb\n");
    assert_eq!(shown("seq 1 2; sort -r | tail -n +2"), "1\n2\nb\na\n");
}

#[test]
fn what_goes_wrong_is_told_as_by_the_shell() {
    let (not_found, bad) = ("sh: 1: nonsense: not found\n", "sh: 1: Syntax error: ");
    assert_eq!(output("nonsense; echo $?"), ("127\n".into(), not_found.into(), 0));
    assert_eq!(output("exit 3; echo no").2, 3);
    for line in ["for", "echo 'a", "a &&", "done", "(a", "|", "echo $(("] {
        let (stdout, stderr, code) = output(line);
        assert!(stdout.is_empty() && stderr.starts_with(bad) && code == 2, "{line}: {stderr}");
    }
}

#[test]
fn time_passes_while_a_line_sleeps() {
    let mut host = host();
    run("sleep 1.5; sleep 2", "", &mut host);
    assert_eq!(host.slept, Duration::from_millis(3500));
}

#[test]
fn bash_sends_datagrams() {
    let mut host = host();
    let dd = "bash -c 'dd if=/dev/zero bs=600 count=18 status=none > /dev/udp/12.0.0.1/53'";
    run(dd, "", &mut host);
    run("bash -c 'echo hi > /dev/udp/12.0.0.1/54'", "", &mut host);
    let to = |port| SocketAddr::from(([12, 0, 0, 1], port));
    assert_eq!(host.sent, [(to(53), 600, 18), (to(54), 3, 1)]);
}
