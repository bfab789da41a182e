//! What only few connections have, apart from the record that all have.

use std::sync::Arc;

use super::template::Template;
use crate::packet::Endpoint;

/// What only few connections have.
#[derive(Debug)]
pub struct Extras {
    /// What binds the client to the server, if the service is persistent.
    pub template: Option<Arc<Template>>,
    /// By full NAT, where the server sees the client.
    pub local: Option<Endpoint>,
}

impl Extras {
    /// The extras of a connection that needs any.
    pub fn new(template: Option<Arc<Template>>, local: Option<Endpoint>) -> Option<Box<Self>> {
        let needed = template.is_some() || local.is_some();
        needed.then(|| Box::new(Self { template, local }))
    }
}
