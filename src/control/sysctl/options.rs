//! The options of sysctl(8).

use clap::Parser;

use crate::engine::settings::REGISTRY;

/// Show or change the settings of IPVS, `net.ipv4.vs.NAME`, as with sysctl(8)
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "sysctl",
    after_help = about_settings(),
    arg_required_else_help = true,
    infer_long_args = true
)]
pub struct Options {
    /// Show all settings
    #[arg(short, long, short_aliases = ['A', 'X'])]
    pub all: bool,
    /// Show names and values to be set, but do not set them
    #[arg(long)]
    pub dry_run: bool,
    /// Show values without line ends
    #[arg(short, long)]
    pub binary: bool,
    /// Say nothing about names that are not known
    #[arg(short = 'e', long)]
    pub ignore: bool,
    /// Show names only
    #[arg(short = 'N', long)]
    pub names: bool,
    /// Show values only
    #[arg(short = 'n', long)]
    pub values: bool,
    /// Set what files say, /etc/sysctl.conf if none are named, `-` for the standard input
    #[arg(short = 'p', long, short_alias = 'f')]
    pub load: bool,
    /// Only settings whose names match the regular expression
    #[arg(short = 'r', long, value_name = "EXPRESSION")]
    pub pattern: Option<String>,
    /// Do not show what is set
    #[arg(short, long)]
    pub quiet: bool,
    /// All words are settings to be changed
    #[arg(short, long)]
    pub write: bool,
    /// Nothing, as in sysctl(8)
    #[arg(short, short_alias = 'x', hide = true)]
    pub o: bool,
    /// Names, or with values to be set; dots or slashes separate their parts
    #[arg(value_name = "NAME[=VALUE]")]
    pub words: Vec<String>,
}

/// Every setting with what it is for, for the end of the help.
fn about_settings() -> String {
    let mut text = String::from("Settings below net.ipv4.vs (those with a * have no effect yet):");
    for setting in REGISTRY {
        let star = if setting.idle.is_some() { "*" } else { "" };
        let name = format!("{}{star}", setting.name);
        let mut line = format!("\n  {name:<NAMES$}");
        for word in setting.about.replace('`', "").split_whitespace() {
            if line.len() + word.len() > WIDTH {
                text += &line;
                line = format!("\n  {:NAMES$}", "");
            }
            line.push(' ');
            line += word;
        }
        text += &line;
    }
    text + EXAMPLES
}

const EXAMPLES: &str = "\n\nExamples:
  ulvs sysctl -a
  ulvs sysctl net.ipv4.vs.expire_nodest_conn=1
  ulvs sysctl -n net.ipv4.vs.drop_entry";

/// Columns of the settings' names, and of the whole.
const NAMES: usize = 25;
const WIDTH: usize = 79;
