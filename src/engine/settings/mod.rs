//! The settings of `net.ipv4.vs`: one registry of names, defaults and what values they take.
//!
//! Engine, control protocol and simulator share it. A new setting is one entry here and its use
//! where it matters.

mod kind;

use kind::{Fixed, Kind, Number, Pair, PowerOfTwo, Range, Seconds, Size};

use super::scheduler::Tunables;

/// Why a setting was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no setting of that name (ENOENT).
    #[error("there is no such setting")]
    Unknown,
    /// It does not take the value (EINVAL).
    #[error("the setting does not take this value")]
    Invalid,
    /// It can be read only (EACCES).
    #[error("the setting can only be read")]
    ReadOnly,
}

/// One setting of the registry.
#[derive(Debug)]
pub struct Setting {
    /// Its name below `net.ipv4.vs`.
    pub name: &'static str,
    /// What it is for, a sentence or two.
    pub about: &'static str,
    /// Why it has no effect, if it is there only to be set and read.
    pub idle: Option<&'static str>,
    show: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), SettingError>,
}

impl Setting {
    /// The setting of that name below `net.ipv4.vs`.
    pub fn named(name: &str) -> Option<&'static Self> {
        REGISTRY.iter().find(|setting| setting.name == name)
    }

    /// Its value, as the kernel shows it.
    pub fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }

    /// Sets it to what `text` says in the kernel's ways of writing numbers.
    ///
    /// **Errors** — if it does not take the value, which stays as it was.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), SettingError> {
        (self.set)(settings, text)
    }
}

macro_rules! settings {
    ($($(#[doc = $about:literal])+ $name:ident: $kind:ty = $default:expr $(, idle $idle:expr)?;)*) => {
        /// The values of all settings, which hold for all services.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $about])+ pub $name: <$kind as Kind>::Value,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Every setting, in the order of their names.
        pub static REGISTRY: &[Setting] = &[$(Setting {
            name: stringify!($name),
            about: concat!($($about),+),
            idle: settings!(@idle $($idle)?),
            show: |settings| <$kind>::show(&settings.$name),
            set: |settings, text| <$kind>::read(text, &mut settings.$name),
        },)*];
    };
    (@idle) => { None };
    (@idle $idle:expr) => { Some($idle) };
}

settings! {
    /// Under `drop_packet` 3, one new connection in this many is dropped.
    am_droprate: Number = 10;
    /// Free memory, in pages of 4096 bytes, below which the automatic defences act. What is free
    /// is the room left in the director's own connection table.
    amemthresh: Number = 1024;
    /// Whether a backup forwards no packets.
    backup_only: Number = 0;
    /// Whether packets of a marked service without a usable server go on to where they were sent.
    cache_bypass: Number = 0;
    /// What a SYN may take the place of: 0 nothing, 1 connections in TIME_WAIT and CLOSE, 2 also
    /// one-way connections in FIN_WAIT.
    conn_reuse_mode: Number = 1;
    /// Whether the kernel's connection tracking follows the packets.
    conntrack: Number = 0, idle "packets of ulvs do not pass the kernel's connection tracking";
    /// How much the kernel's module writes into its log.
    debug_level: Fixed = 0;
    /// Whether idle and half-open connections are dropped: 0 never, 1 and 2 when memory is short
    /// (and 2 says that it is), 3 always.
    drop_entry: Range<0, 3> = 0;
    /// Whether some new connections are dropped: 0 never, 1 and 2 when memory is short, 3 always.
    drop_packet: Range<0, 3> = 0;
    /// Whether connections end with the removal of their server, instead of waiting for it in
    /// silence.
    expire_nodest_conn: Number = 0;
    /// Whether persistent clients leave a server of weight 0 at their next connection.
    expire_quiescent_template: Number = 0;
    /// Whether packets that come out of the director's own tunnels are left alone.
    ignore_tunneled: Number = 0, idle "what the director's host unpacks does not come back to ulvs";
    /// Seconds after which `lblc` forgets an address that nobody asked for.
    lblc_expiration: Seconds = 86_400;
    /// Seconds after which `lblcr` forgets an address that nobody asked for.
    lblcr_expiration: Seconds = 86_400;
    /// Whether packets of real servers without a connection are refused with an ICMP error.
    nat_icmp_send: Number = 0;
    /// Whether clients are told what is too big for the way to their server.
    pmtu_disc: Number = 1;
    /// Whether rates are estimated.
    run_estimation: Number = 1;
    /// Whether an ICMP error may begin a connection.
    schedule_icmp: Number = 0;
    /// Whether a client alone can bring no TCP connection to ESTABLISHED: 0 never, 1 and 2 when
    /// memory is short, 3 always.
    secure_tcp: Range<0, 3> = 0;
    /// Whether any SCTP packet opens a connection, not INIT alone.
    sloppy_sctp: Number = 0;
    /// Whether any TCP segment without RST opens a connection, not SYN alone.
    sloppy_tcp: Number = 0;
    /// Whether answers are routed anew after their translation.
    snat_reroute: Number = 1, idle "ulvs routes every answer after its translation";
    /// Whether only templates of persistent services are synchronised.
    sync_persist_mode: Number = 0;
    /// Number of synchronisation messages' ports, a power of two.
    sync_ports: PowerOfTwo = 1;
    /// Memory for waiting synchronisation messages, in pages.
    sync_qlen_max: Size = 1024;
    /// Seconds after which an unchanged connection is synchronised again.
    sync_refresh_period: Seconds = 0;
    /// How often a connection is synchronised once more.
    sync_retries: Range<0, 3> = 0;
    /// Size of the synchronisation socket's buffer.
    sync_sock_size: Number = 0;
    /// At how many packets a connection is synchronised, and after how many more again.
    sync_threshold: Pair = [3, 50];
    /// Version of the synchronisation protocol.
    sync_version: Range<0, 1> = 1;
}

impl Settings {
    /// What holds for the schedulers of all services.
    pub fn tunables(&self) -> Tunables {
        let ms = |seconds: i32| u64::from(seconds.max(0).unsigned_abs()) * 1000;
        Tunables {
            lblc_expiration_ms: ms(self.lblc_expiration),
            lblcr_expiration_ms: ms(self.lblcr_expiration),
            ..Tunables::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(name: &str, text: &str) -> Result<String, SettingError> {
        let (mut settings, setting) = (Settings::default(), Setting::named(name).unwrap());
        let before = setting.show(&settings);
        let done = setting.set(&mut settings, text);
        let shown = setting.show(&settings);
        assert!(done.is_ok() || shown == before, "{name}: a refused value changes nothing");
        done.map(|()| shown)
    }

    #[test]
    fn the_registry_is_in_the_order_of_names() {
        assert!(REGISTRY.is_sorted_by_key(|setting| setting.name));
        assert!(Setting::named("no_such_setting").is_none());
    }

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        for (text, shown) in [
            ("0x10", "16"),
            ("010", "8"),
            (" 7 ", "7"),
            ("1 2", "1"),
            ("1 x", "1"),
            ("-0x2", "-2"),
            ("2147483647", "2147483647"),
            ("-2147483648", "-2147483648"),
            ("00000000000000000001", "1"),
        ] {
            assert_eq!(after("nat_icmp_send", text).as_deref(), Ok(shown), "{text:?}");
        }
        let wrong = [
            "",
            " ",
            "x",
            "5x",
            "+5",
            "1,2",
            "08",
            "0x",
            "--5",
            "- 5",
            "1.5",
            "2147483648",
            "-2147483649",
            "99999999999999999999999",
            "000000000000000000001",
        ];
        for text in wrong {
            assert_eq!(after("nat_icmp_send", text), Err(SettingError::Invalid), "{text:?}");
        }
    }

    #[test]
    fn each_kind_has_its_bounds() {
        for (name, right, wrong) in [
            ("drop_entry", &["0", "3", "0x2"][..], &["4", "-1"][..]),
            ("sync_ports", &["1", "1024"], &["0", "3", "-4"]),
            (
                "sync_qlen_max",
                &["0", "18446744073709551615"],
                &["-1", "-0", "18446744073709551616"],
            ),
            ("lblc_expiration", &["21474836", "-21474836"], &["21474837", "-21474837"]),
            ("sync_threshold", &["1 2", "0 0", "7 0", "5"], &["5 5", "6 5", "-1 5", "99", "3 9x"]),
        ] {
            right.iter().for_each(|text| assert!(after(name, text).is_ok(), "{name}={text}"));
            wrong.iter().for_each(|text| assert!(after(name, text).is_err(), "{name}={text}"));
        }
        assert_eq!(after("sync_threshold", "5").as_deref(), Ok("5\t50"));
        assert_eq!(after("debug_level", "0"), Err(SettingError::ReadOnly));
    }
}
