//! What a web server has to show.

use std::collections::HashMap;

/// The pages of one server.
#[derive(Clone, Debug)]
pub struct Site {
    name: String,
    pages: HashMap<String, Page>,
}

/// One page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Site {
    /// A site without pages. The name is sent with every answer (as `Server`), so that one can
    /// tell servers apart; characters that cannot be in a header are left out.
    pub fn new(name: &str) -> Self {
        Site { name: header_text(name), pages: HashMap::new() }
    }

    /// The same site with one more page.
    pub fn page(mut self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let page = Page { content_type: header_text(content_type), body: body.into() };
        self.pages.insert(path.to_owned(), page);
        self
    }

    /// The name of the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn find(&self, path: &str) -> Option<&Page> {
        self.pages.get(path)
    }
}

fn header_text(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
}
