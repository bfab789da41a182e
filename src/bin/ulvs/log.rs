//! Logging to standard error, in the form that whoever reads it likes.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging. `RUST_LOG` chooses what is logged, information and worse by default.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Without escape sequences in the fields of events: `Plain` colours what is to be coloured.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if goes_to_journal() {
        builder.event_format(Journal).init();
    } else {
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.event_format(Plain { colours }).init();
    }
}

/// Whether standard error is the journal, which adds times and names itself.
///
/// **Source** — systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream.
fn goes_to_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr().as_fd()) else { return false };
    stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A line per event behind a syslog priority. **Source** — sd-daemon(3).
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A line per event: `ulvs: ` and what happened, with a word for what is wrong.
struct Plain {
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("error: ", anstyle::AnsiColor::Red),
            Level::WARN => ("warning: ", anstyle::AnsiColor::Yellow),
            Level::INFO => ("", anstyle::AnsiColor::White),
            _ => ("debug: ", anstyle::AnsiColor::BrightBlack),
        };
        let style = anstyle::Style::new().fg_color(Some(colour.into()));
        match self.colours && !word.is_empty() {
            true => write!(writer, "ulvs: {style}{word}{style:#}")?,
            false => write!(writer, "ulvs: {word}")?,
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
