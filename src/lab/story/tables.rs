//! What the director's listings have to say.

use super::Scene;

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
