//! The labs as users run them.

#[path = "lab/process.rs"]
mod process;
#[path = "lab/stories.rs"]
mod stories;
#[path = "lab/support.rs"]
mod support;
