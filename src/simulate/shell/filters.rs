//! The programs that take a text and leave another: `cat`, `head`, `sort`, `grep` and the like.

use std::cmp::Ordering;

use super::Output;
use super::programs::{Job, options, resolve, unknown};
use super::sed::{Script, pattern};

/// Runs a program; `None` if there is none of that name.
pub fn run(name: &str, job: &mut Job) -> Option<Output> {
    Some(match name {
        "cat" => cat(job),
        "head" | "tail" => part(name, job),
        "sort" => sort(job),
        "uniq" => uniq(job),
        "wc" => wc(job),
        "grep" => grep(job, ""),
        "egrep" => grep(job, "E"),
        "fgrep" => grep(job, "F"),
        "tr" => tr(job),
        "tee" => tee(job),
        "sed" => sed(job),
        "cut" => cut(job),
        "awk" => awk(job),
        _ => return None,
    })
}

fn cat(job: &mut Job) -> Output {
    let (_, files) = options(job.arguments, "");
    let files: Vec<&str> = files.into_iter().collect();
    job.text("cat", &files)
}

/// The first or last lines.
fn part(name: &str, job: &mut Job) -> Output {
    let arguments: Vec<String> = job
        .arguments
        .iter()
        .map(|word| {
            let count = word.strip_prefix('-').filter(|rest| rest.parse::<usize>().is_ok());
            count.map_or_else(|| (*word).to_owned(), |count| format!("-n{count}"))
        })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (options, files) = options(&arguments, "n");
    let count = options.iter().find(|(letter, _)| *letter == 'n');
    let count = count.map_or("10", |(_, value)| value.as_str());
    let read = job.text(name, &files);
    let lines: Vec<&str> = read.stdout.lines().collect();
    let Ok(number) = count.trim_start_matches(['+', '-']).parse::<usize>() else {
        return unknown(name, job.arguments);
    };
    let shown = match (name, count.starts_with('+'), count.starts_with('-')) {
        ("head", _, false) => &lines[..number.min(lines.len())],
        ("head", _, true) => &lines[..lines.len().saturating_sub(number)],
        (_, true, _) => &lines[number.saturating_sub(1).min(lines.len())..],
        _ => &lines[lines.len().saturating_sub(number)..],
    };
    Output { stdout: shown.iter().map(|line| format!("{line}\n")).collect(), ..read }
}

fn sort(job: &mut Job) -> Output {
    let (options, files) = options(job.arguments, "k");
    let has = |wanted: char| options.iter().any(|(letter, _)| *letter == wanted);
    let key = options.iter().find(|(letter, _)| *letter == 'k');
    let key = key.and_then(|(_, key)| key.split([',', 'n']).next()?.parse::<usize>().ok());
    let read = job.text("sort", &files);
    let mut lines: Vec<&str> = read.stdout.lines().collect();
    let field = |line: &str| match key {
        Some(key) => {
            line.split_whitespace().skip(key.saturating_sub(1)).collect::<Vec<_>>().join(" ")
        }
        None => line.to_owned(),
    };
    let number = |text: &str| -> f64 {
        let text = text.trim_start();
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        text[..end.unwrap_or(text.len())].parse().unwrap_or(0.0)
    };
    lines.sort_by(|one, other| {
        let (one_key, other_key) = (field(one), field(other));
        let by_key = if has('n') {
            number(&one_key).partial_cmp(&number(&other_key)).unwrap_or(Ordering::Equal)
        } else {
            one_key.cmp(&other_key)
        };
        let order = by_key.then_with(|| one.cmp(other));
        if has('r') { order.reverse() } else { order }
    });
    if has('u') {
        lines.dedup();
    }
    Output { stdout: lines.iter().map(|line| format!("{line}\n")).collect(), ..read }
}

fn uniq(job: &mut Job) -> Output {
    let (options, files) = options(job.arguments, "");
    let counts = options.iter().any(|(letter, _)| *letter == 'c');
    let read = job.text("uniq", &files);
    let mut runs: Vec<(usize, &str)> = Vec::new();
    for line in read.stdout.lines() {
        match runs.last_mut() {
            Some((count, last)) if *last == line => *count += 1,
            _ => runs.push((1, line)),
        }
    }
    let show = |(count, line): &(usize, &str)| {
        if counts { format!("{count:>7} {line}\n") } else { format!("{line}\n") }
    };
    Output { stdout: runs.iter().map(show).collect(), ..read }
}

fn wc(job: &mut Job) -> Output {
    let (options, files) = options(job.arguments, "");
    let read = job.text("wc", &files);
    let text = &read.stdout;
    let all = [
        ('l', text.matches('\n').count()),
        ('w', text.split_whitespace().count()),
        ('c', text.len()),
    ];
    let wanted =
        |letter: char| options.is_empty() || options.iter().any(|(each, _)| *each == letter);
    let numbers: Vec<usize> =
        all.iter().filter(|(letter, _)| wanted(*letter)).map(|(_, n)| *n).collect();
    // A single number stands by itself; several are lined up.
    let width = match (numbers.len(), files.is_empty()) {
        (1, _) => 1,
        (_, true) => 7,
        _ => text.len().to_string().len(),
    };
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:>width$}")).collect();
    let mut line = numbers.join(" ");
    if let Some(file) = files.first() {
        line += &format!(" {file}");
    }
    Output { stdout: format!("{line}\n"), ..read }
}

/// `kind` are options that go without saying.
fn grep(job: &mut Job, kind: &str) -> Output {
    let (options, mut rest) = options(job.arguments, "e");
    let has =
        |wanted: char| kind.contains(wanted) || options.iter().any(|(letter, _)| *letter == wanted);
    let given = options.iter().find(|(letter, _)| *letter == 'e').map(|(_, value)| value.clone());
    let wanted = match given {
        Some(wanted) => wanted,
        None if rest.is_empty() => return unknown("grep", job.arguments),
        None => rest.remove(0).to_owned(),
    };
    let wanted = if has('F') { regex_lite::escape(&wanted) } else { wanted };
    let wanted = if has('i') { format!("(?i){wanted}") } else { wanted };
    let Some(wanted) = pattern(&wanted, has('E') || has('F') || has('i')) else {
        return unknown("grep", job.arguments);
    };
    let mut all = Output::default();
    let mut found = 0;
    let files = if rest.is_empty() { vec!["-"] } else { rest };
    for file in &files {
        let text = match job.file(file) {
            Ok(text) => text,
            Err(why) => {
                all.stderr += &format!("grep: {file}: {why}\n");
                continue;
            }
        };
        let name = if files.len() > 1 && !has('h') { format!("{file}:") } else { String::new() };
        let mut count = 0;
        for (number, line) in text.lines().enumerate() {
            if wanted.is_match(line) == has('v') {
                continue;
            }
            count += 1;
            if has('q') || has('c') {
                continue;
            }
            let number = if has('n') { format!("{}:", number + 1) } else { String::new() };
            if has('o') {
                let parts = wanted.find_iter(line).filter(|part| !part.is_empty());
                parts.for_each(|part| all.stdout += &format!("{name}{number}{}\n", part.as_str()));
            } else {
                all.stdout += &format!("{name}{number}{line}\n");
            }
        }
        if has('c') {
            all.stdout += &format!("{name}{count}\n");
        }
        found += count;
    }
    all.code = if all.stderr.is_empty() { i32::from(found == 0) } else { 2 };
    all
}

/// Letters for letters, `-d` without some, `-s` without repetitions.
fn tr(job: &mut Job) -> Output {
    let (options, sets) = options(job.arguments, "");
    let has = |wanted: char| options.iter().any(|(letter, _)| *letter == wanted);
    let sets: Vec<Vec<char>> = sets.iter().map(|set| letters(set)).collect();
    let (Some(from), to) = (sets.first(), sets.get(1)) else {
        return unknown("tr", job.arguments);
    };
    if has('c') || (to.is_none() && !has('d') && !has('s')) {
        return unknown("tr", job.arguments);
    }
    let squeezed = to.unwrap_or(from);
    let mut stdout = String::new();
    for letter in job.stdin.chars() {
        let place = from.iter().rposition(|each| *each == letter);
        let letter = match (place, to) {
            (Some(_), _) if has('d') => continue,
            (Some(at), Some(to)) => *to.get(at).or(to.last()).unwrap_or(&letter),
            _ => letter,
        };
        if !(has('s') && squeezed.contains(&letter) && stdout.ends_with(letter)) {
            stdout.push(letter);
        }
    }
    Output { stdout, ..Output::default() }
}

/// The letters of a set as `tr` writes it: ranges and the usual escapes.
fn letters(set: &str) -> Vec<char> {
    let set = set.replace("\\n", "\n").replace("\\t", "\t");
    let set = set.replace("[:lower:]", "a-z").replace("[:upper:]", "A-Z");
    let set: Vec<char> = set.replace("[:digit:]", "0-9").chars().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < set.len() {
        match set[at..] {
            [first, '-', last, ..] => {
                all.extend(first..=last);
                at += 3;
            }
            _ => {
                all.push(set[at]);
                at += 1;
            }
        }
    }
    all
}

fn tee(job: &mut Job) -> Output {
    let (options, files) = options(job.arguments, "");
    let mut output = Output { stdout: job.stdin.to_owned(), ..Output::default() };
    for file in files {
        let path = resolve(job.folder, file);
        let appends = options.iter().any(|(letter, _)| *letter == 'a');
        let before =
            if appends { job.system.read(&path).unwrap_or_default() } else { String::new() };
        if let Err(why) = job.system.write(&path, &(before + job.stdin)) {
            output.stderr += &format!("tee: {file}: {why}\n");
            output.code = 1;
        }
    }
    output
}

fn sed(job: &mut Job) -> Output {
    let (options, mut rest) = options(job.arguments, "e");
    let has = |wanted: char| options.iter().any(|(letter, _)| *letter == wanted);
    let mut scripts: Vec<String> = options
        .iter()
        .filter(|(letter, _)| *letter == 'e')
        .map(|(_, script)| script.clone())
        .collect();
    if scripts.is_empty() && !rest.is_empty() {
        scripts.push(rest.remove(0).to_owned());
    }
    let extended = has('E') || has('r');
    let Some(script) = Script::parse(&scripts.join("\n"), extended, has('n')) else {
        return unknown("sed", job.arguments);
    };
    let read = job.text("sed", &rest);
    Output { stdout: script.run(&read.stdout), ..read }
}

fn cut(job: &mut Job) -> Output {
    let (options, files) = options(job.arguments, "dfc");
    let value = |wanted: char| {
        options.iter().find(|(letter, _)| *letter == wanted).map(|(_, v)| v.as_str())
    };
    let ranges = |text: &str| -> Vec<(usize, usize)> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            (first.parse().unwrap_or(1), last.parse().unwrap_or(usize::MAX))
        };
        text.split(',').map(range).collect()
    };
    let chosen =
        |ranges: &[(usize, usize)], at: usize| ranges.iter().any(|(a, b)| (*a..=*b).contains(&at));
    let read = job.text("cut", &files);
    let mut stdout = String::new();
    for line in read.stdout.lines() {
        match (value('f'), value('c')) {
            (Some(fields), _) => {
                let sign = value('d').unwrap_or("\t");
                let ranges = ranges(fields);
                let parts: Vec<&str> = line
                    .split(sign)
                    .enumerate()
                    .filter(|(at, _)| chosen(&ranges, at + 1))
                    .map(|(_, part)| part)
                    .collect();
                stdout += &if line.contains(sign) { parts.join(sign) } else { line.to_owned() };
            }
            (None, Some(letters)) => {
                let ranges = ranges(letters);
                let kept = line.chars().enumerate().filter(|(at, _)| chosen(&ranges, at + 1));
                stdout.extend(kept.map(|(_, letter)| letter));
            }
            (None, None) => return unknown("cut", job.arguments),
        }
        stdout.push('\n');
    }
    Output { stdout, ..read }
}

/// `[/PATTERN/] {print $N, …}` is all of awk that there is.
fn awk(job: &mut Job) -> Output {
    let (options, mut rest) = options(job.arguments, "F");
    if rest.is_empty() {
        return unknown("awk", job.arguments);
    }
    let script = rest.remove(0).trim();
    let (wanted, script) = match script.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((wanted, rest)) => (pattern(wanted, true), rest.trim()),
        None => (None, script),
    };
    let inner = script.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let Some(fields) = inner.and_then(|inner| inner.trim().strip_prefix("print")) else {
        return unknown("awk", job.arguments);
    };
    let numbers: Option<Vec<usize>> = fields
        .split(',')
        .map(|field| match field.trim() {
            "" => Some(0),
            field => field.strip_prefix('$')?.parse().ok(),
        })
        .collect();
    let Some(numbers) = numbers else { return unknown("awk", job.arguments) };
    let sign = options.iter().find(|(letter, _)| *letter == 'F').map(|(_, sign)| sign.clone());
    let read = job.text("awk", &rest);
    let mut stdout = String::new();
    for line in read.stdout.lines() {
        if wanted.as_ref().is_some_and(|wanted| !wanted.is_match(line)) {
            continue;
        }
        let fields: Vec<&str> = match &sign {
            Some(sign) => line.split(sign.as_str()).collect(),
            None => line.split_whitespace().collect(),
        };
        let shown = numbers.iter().map(|number| match number.checked_sub(1) {
            None => line,
            Some(at) => fields.get(at).copied().unwrap_or_default(),
        });
        stdout += &format!("{}\n", shown.collect::<Vec<_>>().join(" "));
    }
    Output { stdout, ..read }
}
