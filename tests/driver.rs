//! Packet sockets against the kernel, on links in namespaces of their own.

#[path = "driver/forward.rs"]
mod forward;
#[path = "driver/forwarder.rs"]
mod forwarder;
#[path = "driver/frames.rs"]
mod frames;
#[path = "driver/link.rs"]
mod link;
#[path = "driver/support.rs"]
mod support;
