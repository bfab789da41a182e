//! What the binary does when it is called `iptables`, as on the directors of labs, so that what textbooks
//! have typed there works: the rules are the director's, which forwards in the kernel's place.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::{mark, snat};

/// Carries out the words if the program was called `iptables`.
pub fn by_name(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let program = words.next()?;
    if Path::new(&program).file_name()? != "iptables" {
        return None;
    }
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into()).collect();
    let table = words.windows(2).find(|pair| matches!(pair[0].as_str(), "-t" | "--table"));
    Some(match table.map(|pair| pair[1].as_str()) {
        Some("nat") => snat::run(&snat::Args { words }),
        Some("mangle") => mark::run(&mark::Args { words }),
        Some(_) | None => {
            eprintln!("iptables: only -t nat (SNAT) and -t mangle (MARK) are known to ulvs");
            eprintln!(
                "hint: on this host `iptables' stands for `ulvs snat' and `ulvs mark'; the kernel's \
                 own is reached by its whole path, as in /usr/sbin/iptables"
            );
            ExitCode::from(2)
        }
    })
}
