//! The settings of `net.ipv4.vs` that the director follows, with the kernel's names and defaults.

use super::scheduler::Tunables;

/// Settings that hold for all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `conn_reuse_mode`: 0 never lets a SYN take a connection's place, 1 in TIME_WAIT and CLOSE,
    /// 2 also in FIN_WAIT of one-way connections.
    pub conn_reuse_mode: u8,
    /// `expire_nodest_conn`: connections of removed servers end at their next packet, instead of
    /// swallowing it.
    pub expire_nodest_conn: bool,
    /// `expire_quiescent_template`: a server of weight 0 loses its persistent clients at their next
    /// connection.
    pub expire_quiescent_template: bool,
    /// `sloppy_tcp`: any segment without RST opens a connection.
    pub sloppy_tcp: bool,
    /// `sloppy_sctp`: any chunk but ABORT opens a connection.
    pub sloppy_sctp: bool,
    /// `secure_tcp`: whether the stricter table of TCP states is in force.
    pub secure_tcp: bool,
    /// What holds for the schedulers of all services: `lblc_expiration` and its like.
    pub schedulers: Tunables,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            secure_tcp: false,
            schedulers: Tunables::default(),
        }
    }
}
