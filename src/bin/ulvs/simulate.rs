//! `ulvs simulate`: scenario files in, transcripts out.

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ulvs::simulate::scenario::{Step, parse_scenario};
use ulvs::simulate::{Manner, PlayError, play_in, plot};

/// The exit code for files that cannot be read, or not be understood.
const BAD_INPUT: u8 = 2;

/// Play packet scenarios through the director with a virtual clock, and print what happens.
///
/// Nothing of this machine is touched and `sleep` costs no time. All files are checked before
/// anything is played; one that is wrong is named with the line, and the exit code is 2.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Scenario files; `-` reads standard input.
    #[arg(required_unless_present = "plot", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Tell under each packet why: the service that takes it, what the scheduler looks at, the
    /// connection with its state before and after, and what is rewritten.
    #[arg(long)]
    explain: bool,
    /// Draw how every scheduler distributes the same thousands of connections, as an SVG picture.
    #[arg(long, value_name = "OUT.svg", conflicts_with_all = ["files", "explain"])]
    plot: Option<PathBuf>,
}

/// Plays the scenarios one after another.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if let Some(path) = &arguments.plot {
        return draw(path);
    }
    let mut scenarios = Vec::new();
    for path in &arguments.files {
        match read(path) {
            Ok(steps) => scenarios.push((path, steps)),
            Err(why) => return complain(path, &why),
        }
    }
    let manner = Manner { explain: arguments.explain };
    let mut output = BufWriter::new(io::stdout().lock());
    for (path, steps) in scenarios {
        match play_in(manner, &steps, &mut output) {
            Ok(()) => {}
            Err(PlayError::Write(error)) => return end_of_output(&error),
            Err(error) => {
                let _ = output.flush();
                return complain(path, &error.to_string());
            }
        }
    }
    match output.flush() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end_of_output(&error),
    }
}

fn draw(path: &Path) -> ExitCode {
    match std::fs::write(path, plot::schedulers()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ulvs: {}: cannot write the picture: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<Vec<Step>, String> {
    let mut text = String::new();
    let done = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    done.map_err(|error| format!("cannot read the scenario: {error}"))?;
    parse_scenario(&text).map_err(|error| error.to_string())
}

fn complain(path: &Path, why: &str) -> ExitCode {
    eprintln!("ulvs: {}: {why}", path.display());
    ExitCode::from(BAD_INPUT)
}

/// A reader that has seen enough, such as `head`, is no failure.
fn end_of_output(error: &io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("ulvs: cannot write the transcript: {error}");
    ExitCode::FAILURE
}
