//! A topology drawn with lines and boxes, from its first host downwards.

use crate::lab::net::Prefix;
use crate::lab::topology::{Host, Topology};

/// Draws a topology that is a tree, as all labs are; what hangs together in a circle is drawn
/// where it is reached first.
///
/// **Shape** — lines of one width, which fits three hosts beside each other into 100 columns.
pub fn draw(topology: &Topology) -> Vec<String> {
    let Some(first) = topology.hosts.first() else { return Vec::new() };
    let mut drawn = vec![first.name];
    subtree(topology, first, None, &mut drawn)
        .lines
        .into_iter()
        .map(|line| line.into_iter().collect::<String>().trim_end().to_owned())
        .collect()
}

/// A rectangle of characters, which is connected upwards at one column.
struct Block {
    lines: Vec<Vec<char>>,
    anchor: usize,
}

/// Columns between hosts beside each other.
const GAP: usize = 2;

fn subtree<'a>(
    topology: &'a Topology,
    host: &'a Host,
    above: Option<&str>,
    drawn: &mut Vec<&'a str>,
) -> Block {
    let mut below = Vec::new();
    for (_, far) in topology.ports(host.name) {
        if drawn.contains(&far.host) {
            continue;
        }
        let Some(next) = topology.host(far.host) else { continue };
        drawn.push(next.name);
        below.push(subtree(topology, next, Some(host.name), drawn));
    }
    let own = boxed(&texts(topology, host, above));
    if below.is_empty() { own } else { hang(own, beside(below)) }
}

/// The lines in a host's box: what is above it, its name, what is below it.
fn texts(topology: &Topology, host: &Host, above: Option<&str>) -> Vec<String> {
    let name = if host.name == host.role {
        host.name.to_owned()
    } else {
        format!("{}: {}", host.name, host.role)
    };
    let mut texts = vec![name];
    for (near, far) in topology.ports(host.name) {
        let place = if Some(far.host) == above { 0 } else { texts.len() };
        texts.splice(place..place, addresses(near.interface, &near.addresses));
    }
    for (interface, address) in &host.addresses {
        texts.extend(addresses(interface, std::slice::from_ref(address)));
    }
    texts
}

/// An interface with its addresses below each other.
fn addresses(interface: &str, addresses: &[Prefix]) -> Vec<String> {
    let name = |index| if index == 0 { interface } else { "" };
    let width = interface.len();
    let lines = addresses.iter().enumerate();
    lines.map(|(index, address)| format!("{:<width$} {address}", name(index))).collect()
}

fn boxed(texts: &[String]) -> Block {
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let border = |left: char, right: char| {
        let line = std::iter::repeat_n('─', width + 2);
        std::iter::once(left).chain(line).chain(std::iter::once(right)).collect()
    };
    let mut lines: Vec<Vec<char>> = vec![border('┌', '┐')];
    lines.extend(texts.iter().map(|text| format!("│ {text:<width$} │").chars().collect()));
    lines.push(border('└', '┘'));
    Block { lines, anchor: (width + 4) / 2 }
}

/// Blocks beside each other, with the columns where they are connected.
struct Row {
    lines: Vec<Vec<char>>,
    anchors: Vec<usize>,
}

fn beside(blocks: Vec<Block>) -> Row {
    let height = blocks.iter().map(|block| block.lines.len()).max().unwrap_or(0);
    let mut row = Row { lines: vec![Vec::new(); height], anchors: Vec::new() };
    for block in blocks {
        let start =
            row.lines.first().map_or(0, |line| if line.is_empty() { 0 } else { line.len() + GAP });
        let width = start + block.lines.first().map_or(0, Vec::len);
        row.anchors.push(start + block.anchor);
        for (index, line) in row.lines.iter_mut().enumerate() {
            line.resize(start, ' ');
            line.extend(block.lines.get(index).into_iter().flatten());
            line.resize(width, ' ');
        }
    }
    row
}

/// A block over a row, connected with it.
fn hang(mut over: Block, mut row: Row) -> Block {
    let (Some(&first), Some(&last)) = (row.anchors.first(), row.anchors.last()) else {
        return over;
    };
    let middle = (first + last) / 2;
    // Whatever of the two reaches further to the left stays where it is.
    let shift_row = over.anchor.saturating_sub(middle);
    let shift_over = middle.saturating_sub(over.anchor);
    for line in &mut row.lines {
        line.splice(0..0, std::iter::repeat_n(' ', shift_row));
    }
    for anchor in &mut row.anchors {
        *anchor += shift_row;
    }
    for line in &mut over.lines {
        line.splice(0..0, std::iter::repeat_n(' ', shift_over));
    }
    let column = over.anchor + shift_over;
    connect(over.lines.last_mut(), column, '┬');
    for &anchor in &row.anchors {
        connect(row.lines.first_mut(), anchor, '┴');
    }
    let mut lines = over.lines;
    lines.push(branches(column, &row.anchors));
    lines.append(&mut row.lines);
    let width = lines.iter().map(Vec::len).max().unwrap_or(0);
    lines.iter_mut().for_each(|line| line.resize(width, ' '));
    Block { lines, anchor: column }
}

fn connect(line: Option<&mut Vec<char>>, column: usize, with: char) {
    if let Some(place) = line.and_then(|line| line.get_mut(column)) {
        *place = with;
    }
}

/// The line from one column down to several.
fn branches(from: usize, to: &[usize]) -> Vec<char> {
    let (first, last) = (to[0].min(from), to[to.len() - 1].max(from));
    (0..=last)
        .map(|column| match (column == from, to.contains(&column)) {
            _ if column < first => ' ',
            (true, true) if first == last => '│',
            (true, true) => '┼',
            (true, false) => '┴',
            (false, true) if column == first => '┌',
            (false, true) if column == last => '┐',
            (false, true) => '┬',
            (false, false) => '─',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::topology::{dr, nat};

    #[test]
    fn the_nat_lab_is_drawn() {
        let expected = [
            "                                ┌───────────────────┐",
            "                                │ client            │",
            "                                │ eth0 12.0.0.12/24 │",
            "                                └─────────┬─────────┘",
            "                                          │",
            "                               ┌──────────┴──────────┐",
            "                               │ out 12.0.0.1/24     │",
            "                               │ director: ulvs run  │",
            "                               │ in 192.168.200.1/24 │",
            "                               └──────────┬──────────┘",
            "                                          │",
            "                                     ┌────┴───┐",
            "                                     │ switch │",
            "                                     └────┬───┘",
            "             ┌────────────────────────────┼────────────────────────────┐",
            "┌────────────┴────────────┐  ┌────────────┴────────────┐  ┌────────────┴────────────┐",
            "│ eth0 192.168.200.110/24 │  │ eth0 192.168.200.120/24 │  │ eth0 192.168.200.130/24 │",
            "│ real1: web server       │  │ real2: web server       │  │ storage: NFS server     │",
            "└─────────────────────────┘  └─────────────────────────┘  └─────────────────────────┘",
        ];
        assert_eq!(draw(&nat::topology()), expected);
    }

    #[test]
    fn addresses_stand_below_each_other_and_those_of_lo_below_the_name() {
        let drawing = draw(&dr::tutorial::topology());
        let boxes = [
            "│ eth0 192.168.0.109/24 │  │ eth0 192.168.0.112/24 │  │ eth0 192.168.0.113/24 │",
            "│      192.168.0.110/32 │  │ real1: web server     │  │ real2: web server     │",
            "│ director: ulvs run    │  │ lo 192.168.0.110/32   │  │ lo 192.168.0.110/32   │",
        ];
        let bottom = drawing.len() - 1;
        assert_eq!(drawing[bottom - boxes.len()..bottom], boxes, "{drawing:#?}");
    }

    #[test]
    fn two_children_hang_between_and_a_wide_parent_is_not_cut() {
        let mut topology = nat::topology();
        topology.hosts.retain(|host| ["switch", "real1", "real2"].contains(&host.name));
        topology.hosts[0].role = "a switch with a very, very long description of what it is for";
        let drawing = draw(&topology);
        let branches =
            drawing.iter().find(|line| line.contains('┴') && line.contains('┐')).unwrap();
        let column = branches.chars().position(|c| c == '┴').unwrap();
        assert_eq!(drawing[2].chars().nth(column), Some('┬'), "{drawing:#?}");
    }
}
