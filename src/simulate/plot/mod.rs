//! A picture of what the schedulers do: `ulvs simulate --plot`.

mod picture;
mod traffic;

/// Draws how each scheduler distributes the same thousands of connections, as an SVG document.
///
/// The schedulers are the engine's own, so that a new one has its place in the picture as soon as
/// it is registered.
pub fn schedulers() -> String {
    picture::draw(&traffic::courses())
}
