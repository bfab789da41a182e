//! Names of settings, with dots or slashes.

/// A name as it was given.
pub(super) struct Key {
    /// With slashes, from below `/proc/sys` on.
    path: String,
    /// With dots.
    name: String,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A setting of `net.ipv4.vs`, or what would be one.
    Setting(&'a str),
    /// A directory in which all of them are.
    Directory,
}

impl Key {
    /// **Source** — sysctl(8): whichever of `.` and `/` comes first separates, and the other stands
    /// for the first within a part.
    pub(super) fn new(given: &str) -> Self {
        let is_path = given.find(['.', '/']).is_some_and(|at| given[at..].starts_with('/'));
        let swapped = given.chars().map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        });
        let (given, swapped) = (given.to_owned(), swapped.collect());
        match is_path {
            true => Self { path: given, name: swapped },
            false => Self { path: swapped, name: given },
        }
    }

    /// With dots, as it is shown.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the kernel would have it.
    pub(super) fn path(&self) -> String {
        format!("/proc/sys/{}", self.path)
    }

    pub(super) fn target(&self) -> Option<Target<'_>> {
        let mut parts = self.path.split('/').filter(|part| !part.is_empty());
        for directory in ["net", "ipv4", "vs"] {
            match parts.next() {
                None => return Some(Target::Directory),
                Some(part) if part == directory => {}
                Some(_) => return None,
            }
        }
        match (parts.next(), parts.next()) {
            (None, _) => Some(Target::Directory),
            (Some(name), None) => Some(Target::Setting(name)),
            (Some(_), Some(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_separator_leads_to_a_setting() {
        for (given, name, target) in [
            ("net.ipv4.vs.drop_entry", "net.ipv4.vs.drop_entry", Some("drop_entry")),
            ("net/ipv4/vs/drop_entry", "net.ipv4.vs.drop_entry", Some("drop_entry")),
            (".net.ipv4.vs.drop_entry", ".net.ipv4.vs.drop_entry", Some("drop_entry")),
            ("/net/ipv4/vs/drop_entry", ".net.ipv4.vs.drop_entry", Some("drop_entry")),
            ("net.ipv4.vs/drop_entry", "net.ipv4.vs/drop_entry", None),
            ("net/ipv4.vs/drop_entry", "net.ipv4/vs.drop_entry", None),
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward", None),
            ("net.ipv4.vs.drop.entry", "net.ipv4.vs.drop.entry", None),
        ] {
            let key = Key::new(given);
            assert_eq!(key.name(), name, "{given}");
            assert_eq!(key.target(), target.map(Target::Setting), "{given}");
        }
        for directory in ["", "net", "net.ipv4", "net.ipv4.vs", "net/ipv4/vs/"] {
            assert_eq!(Key::new(directory).target(), Some(Target::Directory), "{directory}");
        }
        assert_eq!(Key::new("net.ipv4.vs/x").path(), "/proc/sys/net/ipv4/vs.x");
    }
}
