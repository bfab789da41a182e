//! Which interfaces to work on.

use std::io;

use crate::link::{HostView, Interface, MAX_PORTS, is_door};

/// The interfaces named, or all that look fit if none is.
///
/// **Errors** — an unknown name, with the names there are; none fit.
pub(super) fn choose(named: &[String], view: &HostView) -> io::Result<Vec<String>> {
    if named.is_empty() {
        let found: Vec<_> = view
            .interfaces
            .iter()
            .filter(|interface| is_fit(interface))
            .map(|interface| interface.name.clone())
            .take(MAX_PORTS)
            .collect();
        if found.is_empty() {
            return Err(invalid("no Ethernet interface is up; name one with --interface".into()));
        }
        return Ok(found);
    }
    require(named, view)?;
    let mut chosen: Vec<String> = Vec::new();
    for name in named {
        if !chosen.contains(name) {
            chosen.push(name.clone());
        }
    }
    if chosen.len() > MAX_PORTS {
        return Err(invalid(format!("more than {MAX_PORTS} interfaces")));
    }
    Ok(chosen)
}

/// Whether all of these are there.
///
/// **Errors** — an unknown name, with the names there are.
pub(super) fn require(named: &[String], view: &HostView) -> io::Result<()> {
    let Some(name) = named.iter().find(|name| view.interface(name).is_none()) else {
        return Ok(());
    };
    let known: Vec<_> = view.interfaces.iter().map(|each| each.name.as_str()).collect();
    let known = known.join(", ");
    Err(invalid(format!("there is no interface {name}; there are {known}")))
}

/// Ethernet, up, not a member of a bridge or bond, whose frames the master has as well, and no
/// director's own.
fn is_fit(interface: &Interface) -> bool {
    !is_door(&interface.name) && interface.ethernet && interface.up && interface.master.is_none()
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> HostView {
        let interface = |name: &str, ethernet, up, master| Interface {
            name: name.into(),
            ethernet,
            up,
            master,
            ..Interface::default()
        };
        let interfaces = vec![
            interface("lo", false, true, None),
            interface("eth0", true, true, None),
            interface("eth1", true, false, None),
            interface("port", true, true, Some(7)),
            interface("br0", true, true, None),
        ];
        HostView { interfaces, ..HostView::default() }
    }

    #[test]
    fn without_names_all_that_can_carry_clients_are_taken() {
        assert_eq!(choose(&[], &view()).unwrap(), ["eth0", "br0"]);
        let error = choose(&[], &HostView::default()).unwrap_err();
        assert!(error.to_string().contains("--interface"), "{error}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = choose(&["eth9".into()], &view()).unwrap_err().to_string();
        assert!(error.contains("eth9") && error.contains("lo, eth0, eth1"), "{error}");
        assert_eq!(choose(&["lo".into(), "lo".into()], &view()).unwrap(), ["lo"]);
    }
}
