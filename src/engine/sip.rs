//! The SIP persistence engine: what a client's messages belong to.
//!
//! **Source** — IPVS `ip_vs_pe_sip`: packets of one client with the same Call-ID share a template.

/// The longest Call-ID that is looked at, in bytes. **Source** — `IP_VS_PEDATA_MAXLEN`.
pub const MAX_CALL_ID_LEN: usize = 255;

/// The Call-ID of a SIP message, given the bytes of its datagram.
///
/// `None` if there is none, if it is longer than [`MAX_CALL_ID_LEN`], or if no line ends right
/// behind it: then it may be cut short, or be something else.
///
/// **Source** — RFC 3261 §7.3.1 (header lines, their compact form, continuation) and §20.8. Lines
/// may end as in RFC 2543, with CR, LF or both.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let value = lines(message).skip(1).find_map(call_id_value)?;
    // The first line of that name decides, whether there is something in it or not.
    let value = value?;
    let id = &value[..call_id_len(value)];
    let is_followed_by_end = matches!(value.get(id.len()), Some(b'\r' | b'\n'));
    let fits = (1..=MAX_CALL_ID_LEN).contains(&id.len());
    (fits && is_followed_by_end).then_some(id)
}

/// The lines of a message, each with its end and everything behind it.
fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let line = rest?;
        rest = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).map(|end| {
            let is_pair = line[end..].starts_with(b"\r\n");
            &line[end + if is_pair { 2 } else { 1 }..]
        });
        Some(line)
    })
}

/// What stands behind the name, colon and blanks of a Call-ID line: `Some(None)` if there is no
/// colon, `None` if it is another line.
fn call_id_value(line: &[u8]) -> Option<Option<&[u8]>> {
    let has_name =
        |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let is_compact =
        || has_name(b"i") && line.get(1).is_some_and(|next| !next.is_ascii_alphabetic());
    let name_len = match has_name(b"call-id") {
        true => 7,
        false if is_compact() => 1,
        false => return None,
    };
    let value = skip_blanks(&line[name_len..]).strip_prefix(b":").map(skip_blanks);
    Some(value)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &line[blanks..]
}

/// `callid = word [ "@" word ]`; 0 if it is none. **Source** — RFC 3261 §25.1.
fn call_id_len(value: &[u8]) -> usize {
    let word = word_len(value);
    if word == 0 || value.get(word) != Some(&b'@') {
        return word;
    }
    match word_len(&value[word + 1..]) {
        0 => 0,
        host => word + 1 + host,
    }
}

fn word_len(value: &[u8]) -> usize {
    let is_word =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&byte);
    value.iter().take_while(|byte| is_word(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(message: &str) -> Option<&str> {
        call_id(message.as_bytes()).map(|id| std::str::from_utf8(id).unwrap())
    }

    #[test]
    fn the_line_is_found_by_either_name_in_any_case() {
        assert_eq!(found("INVITE sip:a SIP/2.0\r\nTo: b\r\nCall-ID: 1@c\r\n\r\n"), Some("1@c"));
        assert_eq!(found("X\ncall-id \t:\t1\n"), Some("1"));
        assert_eq!(found("X\rI:(a)<b>@[c]\r"), Some("(a)<b>@[c]"));
        assert_eq!(found("X\r\nIdent: 1\r\ni: 2\r\n"), Some("2"));
    }

    #[test]
    fn what_is_not_whole_is_none() {
        for message in [
            "",
            "hello",
            "Call-ID: 1\r\n",
            "X\r\n Call-ID: 1\r\n",
            "X\r\nCall-ID: 1",
            "X\r\nCall-ID: 1@\r\n",
            "X\r\nCall-ID: 1;x\r\n",
            "X\r\nCall-ID:\r\n",
            "X\r\nCall-ID\r\nCall-ID: 1\r\n",
        ] {
            assert_eq!(found(message), None, "{message:?}");
        }
        let long = |len| format!("X\r\nCall-ID: {}\r\n", "a".repeat(len));
        assert_eq!(found(&long(255)).map(str::len), Some(255));
        assert_eq!(found(&long(256)), None);
    }

    proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = call_id(&message);
            let with_name = [b"X\r\nCall-ID: ", message.as_slice()].concat();
            if let Some(id) = call_id(&with_name) {
                prop_assert!(!id.is_empty() && id.len() <= MAX_CALL_ID_LEN);
            }
        }
    }
}
