//! The system calls of the lab that neither `std` nor `nix` makes safe to call.
#![allow(unsafe_code)]

pub(crate) mod ethtool;
pub(crate) mod spawn;
