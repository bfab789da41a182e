//! The one place where refusals of the engine become error numbers.

use nix::errno::Errno;

use crate::engine::service::ConfigError;

/// The number by which Linux's IPVS tells the same.
pub(super) fn errno(error: ConfigError) -> Errno {
    match error {
        ConfigError::ServiceExists | ConfigError::RealExists => Errno::EEXIST,
        ConfigError::NoSuchService => Errno::ESRCH,
        ConfigError::NoSuchReal | ConfigError::NoSuchScheduler => Errno::ENOENT,
        ConfigError::OutOfRange => Errno::ERANGE,
        ConfigError::Invalid => Errno::EINVAL,
        ConfigError::OutOfMemory => Errno::ENOMEM,
    }
}
