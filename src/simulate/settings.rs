//! The settings of `net.ipv4.vs` by name, as sysctl reads and writes them.

use std::collections::BTreeMap;

/// Why a setting was refused, in the words of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no setting of that name.
    #[error("No such file or directory")]
    Unknown,
    /// The value is not one that it takes.
    #[error("Invalid argument")]
    Invalid,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// Any 32-bit number.
    Number,
    /// A number in a range.
    Range(i64, i64),
    /// A power of two up to 64.
    Ports,
    /// Two numbers, the first below the second, neither negative.
    Threshold,
    /// What the host does beside IPVS, and the simulator takes for granted.
    Host,
}

/// Every setting with its default.
const ALL: [(&str, &str, Domain); 32] = [
    ("am_droprate", "10", Domain::Number),
    ("amemthresh", "1024", Domain::Number),
    ("backup_only", "0", Domain::Number),
    ("cache_bypass", "0", Domain::Number),
    ("conn_reuse_mode", "1", Domain::Number),
    ("conntrack", "0", Domain::Number),
    ("debug_level", "0", Domain::Number),
    ("drop_entry", "0", Domain::Range(0, 3)),
    ("drop_packet", "0", Domain::Range(0, 3)),
    ("expire_nodest_conn", "0", Domain::Number),
    ("expire_quiescent_template", "0", Domain::Number),
    ("ignore_tunneled", "0", Domain::Number),
    ("lblc_expiration", "86400", Domain::Number),
    ("lblcr_expiration", "86400", Domain::Number),
    ("nat_icmp_send", "0", Domain::Number),
    ("pmtu_disc", "1", Domain::Number),
    ("run_estimation", "1", Domain::Number),
    ("schedule_icmp", "0", Domain::Number),
    ("secure_tcp", "0", Domain::Range(0, 3)),
    ("sloppy_sctp", "0", Domain::Number),
    ("sloppy_tcp", "0", Domain::Number),
    ("snat_reroute", "1", Domain::Number),
    ("sync_persist_mode", "0", Domain::Number),
    ("sync_ports", "1", Domain::Ports),
    ("sync_qlen_max", "1024", Domain::Number),
    ("sync_refresh_period", "0", Domain::Number),
    ("sync_retries", "0", Domain::Range(0, 3)),
    ("sync_sock_size", "0", Domain::Number),
    ("sync_threshold", "3\t50", Domain::Threshold),
    ("sync_version", "1", Domain::Range(0, 1)),
    ("net.ipv4.conf.all.send_redirects", "0", Domain::Host),
    ("net.ipv4.conf.out.send_redirects", "0", Domain::Host),
];
const PREFIX: &str = "net.ipv4.vs.";

/// The values of all settings.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { values: ALL.iter().map(|(name, value, _)| (*name, (*value).to_string())).collect() }
    }
}

impl Settings {
    /// The value of a setting, as it is shown.
    pub fn show(&self, name: &str) -> Result<String, SettingError> {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        self.values.get(name).cloned().ok_or(SettingError::Unknown)
    }

    /// The value of a setting that is one number, by its name without `net.ipv4.vs`.
    pub fn number(&self, name: &str) -> i64 {
        self.values.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Sets a value.
    ///
    /// **Errors** — if there is no such setting or it does not take the value, which stays as it was.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let setting = ALL.iter().find(|(each, ..)| *each == name);
        let (name, _, domain) = setting.ok_or(SettingError::Unknown)?;
        let value = domain.accept(value).ok_or(SettingError::Invalid)?;
        self.values.insert(name, value);
        Ok(())
    }
}

impl Domain {
    /// The value as it will be shown; `None` if it is not one of the domain.
    fn accept(self, text: &str) -> Option<String> {
        let numbers: Option<Vec<i64>> =
            text.split_whitespace().map(|word| Some(word.parse::<i32>().ok()?.into())).collect();
        let numbers = numbers?;
        let fits = match (self, numbers.as_slice()) {
            (Self::Number | Self::Host, [_]) => true,
            (Self::Range(low, high), [value]) => (low..=high).contains(value),
            (Self::Ports, [value]) => (1..=64).contains(value) && value.count_ones() == 1,
            (Self::Threshold, [first, second]) => 0 <= *first && first < second,
            _ => false,
        };
        let words: Vec<String> = numbers.iter().map(i64::to_string).collect();
        fits.then(|| words.join("\t"))
    }
}
