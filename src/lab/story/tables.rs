//! What the director's listings have to say.

use std::net::{IpAddr, SocketAddr};

use super::Scene;

/// A line of `ipvsadm -Lnc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Seconds until it expires, if nothing happens.
    pub(super) expires_s: u32,
    pub(super) state: String,
    pub(super) client: SocketAddr,
    pub(super) service: SocketAddr,
    pub(super) server: SocketAddr,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (minutes, seconds) = words.next()?.split_once(':')?;
        let expires_s = minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?;
        let state = words.next()?.to_owned();
        let mut endpoint = || words.next()?.parse().ok();
        let (client, service, server) = (endpoint()?, endpoint()?, endpoint()?);
        Some(Entry { expires_s, state, client, service, server })
    }
}

/// The entry that binds a client to its server, which has the client's port 0.
pub(super) fn template(listing: &str, client: IpAddr, service: SocketAddr) -> Option<Entry> {
    let mut entries = listing.lines().filter_map(Entry::parse);
    entries.find(|entry| entry.client == SocketAddr::new(client, 0) && entry.service == service)
}

impl Scene<'_> {
    /// Promises that a listing of `ipvsadm -Ln` has a real server with a forwarding method and a
    /// weight.
    pub fn promise_server_listed(
        &mut self,
        listing: &str,
        server: &str,
        method: &str,
        weight: u32,
    ) {
        let listed = listing.lines().any(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.starts_with(&["->", server, method, weight.to_string().as_str()])
        });
        let text = format!("ipvsadm -Ln lists {server} with {method} and weight {weight}");
        self.promise(listed, text);
    }

    /// Promises that a listing has this line, however it is spaced.
    pub fn promise_line(&mut self, what: &str, listing: &str, line: &str) {
        let wanted: Vec<&str> = line.split_ascii_whitespace().collect();
        let has = |line: &str| line.split_ascii_whitespace().eq(wanted.iter().copied());
        self.promise(listing.lines().any(has), format_args!("{what} shows: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_found_among_connections() {
        let listing = "IPVS connection entries\n\
            pro expire state       source             virtual            destination\n\
            TCP 01:56  TIME_WAIT   10.1.1.11:39353    10.1.1.35:80       192.168.122.128:80\n\
            TCP 00:06  NONE        10.1.1.11:0        10.1.1.35:80       192.168.122.128:80\n";
        let (client, service) = ([10, 1, 1, 11].into(), ([10, 1, 1, 35], 80).into());
        let found = template(listing, client, service).unwrap();
        assert_eq!((found.expires_s, found.state.as_str()), (6, "NONE"));
        assert_eq!(found.server, ([192, 168, 122, 128], 80).into());
        assert_eq!(template(listing, [10, 1, 1, 12].into(), service), None);
        assert_eq!(template(listing, client, ([10, 1, 1, 35], 3306).into()), None);
    }
}
