//! Measures the director beside other forwarders, on the machine at hand.
//!
//! - [`load`]: what a client does to a director, and what is measured of it.

pub mod load;
