//! What a host's programs do that is not web service.

pub mod nfs;
