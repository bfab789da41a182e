//! Making the device: one pair of halves per queue.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::receiver::TunReceiver;
use super::sender::TunSender;

/// What a device is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Its name; a `%d` in it is replaced by the first free number.
    pub name: String,
    /// How many queues it has.
    pub queues: usize,
    /// The link address of a device whose packets have Ethernet headers (TAP); none for one of plain
    /// IP packets.
    pub link_address: Option<[u8; 6]>,
}

/// A device, down and without addresses.
///
/// **Shape** — the halves keep it: it vanishes with the last of them.
#[derive(Debug)]
pub struct Tun {
    /// Its name.
    pub name: String,
    /// Whether UDP super-frames pass whole (Linux 6.2); others always do.
    pub udp_segmentation: bool,
    /// A pair of halves for each queue, in order.
    pub queues: Vec<(TunReceiver, TunSender)>,
}

impl Tun {
    /// Makes a device.
    ///
    /// **Errors** — name the device, what failed and what is needed; nothing stays.
    pub fn open(config: &TunConfig) -> io::Result<Self> {
        let TunConfig { name, queues, link_address } = config;
        let failed = |operation: &str, error: io::Error| failed(name, operation, &error);
        // Whoever opens a name that is there shares that device with its owner.
        if nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
            let problem = "there is an interface of this name already; name another";
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("TUN device {name}: {problem}"),
            ));
        }
        // The crate would make it.
        if !Path::new(NODE).exists() {
            let error = io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no {NODE} (a container needs it as --device {NODE})"),
            );
            return Err(failed("open", error));
        }
        let builder = match link_address {
            Some(address) => DeviceBuilder::new().layer(Layer::L2).mac_addr(*address),
            None => DeviceBuilder::new().layer(Layer::L3),
        };
        let first = builder
            .name(name)
            .multi_queue(true)
            .offload(true)
            .enable(false)
            .build_sync()
            .map_err(|error| failed("make device", error))?;
        let name = first.name().map_err(|error| failed("ask for its name", error))?;
        let udp_segmentation = first.udp_gso();
        let mut devices = vec![first];
        for _ in 1..(*queues).max(1) {
            let next = devices[0].try_clone().map_err(|error| failed("add queue", error))?;
            devices.push(next);
        }
        for device in &devices {
            device.set_nonblocking(true).map_err(|error| failed("set up queue", error))?;
        }
        let queues = devices.into_iter().enumerate().map(|(number, device)| halves(number, device));
        Ok(Self { name, udp_segmentation, queues: queues.collect() })
    }
}

fn halves(number: usize, device: SyncDevice) -> (TunReceiver, TunSender) {
    let queue = Arc::new(device);
    (TunReceiver::new(Arc::clone(&queue), number == 0), TunSender::new(queue))
}

fn failed(name: &str, operation: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => " (needs CAP_NET_ADMIN in this network namespace)",
        Some(libc::EACCES) => " (needs leave to open /dev/net/tun)",
        Some(libc::EBUSY) => " (another program has that name)",
        Some(libc::E2BIG) => " (more queues than the kernel has)",
        Some(libc::EINVAL) => " (the kernel lacks multiple queues, or the name is not allowed)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("TUN device {name}: {operation}: {error}{hint}"))
}

const NODE: &str = "/dev/net/tun";
