//! `$((…))`: whole numbers with the usual operators.

/// The value of an expression whose variables are filled in; `None` if it is none.
pub fn calculate(text: &str) -> Option<i64> {
    let letters: Vec<u8> = text.bytes().filter(|letter| !letter.is_ascii_whitespace()).collect();
    let mut at = 0;
    let value = sum(&letters, &mut at, 0)?;
    (at == letters.len()).then_some(value)
}

/// Parentheses within parentheses, at most.
const MAX_DEPTH: usize = 32;

fn sum(letters: &[u8], at: &mut usize, depth: usize) -> Option<i64> {
    let mut value = product(letters, at, depth)?;
    while let Some(operator @ (b'+' | b'-')) = letters.get(*at) {
        *at += 1;
        let right = product(letters, at, depth)?;
        value =
            if *operator == b'+' { value.checked_add(right)? } else { value.checked_sub(right)? };
    }
    Some(value)
}

fn product(letters: &[u8], at: &mut usize, depth: usize) -> Option<i64> {
    let mut value = factor(letters, at, depth)?;
    while let Some(operator @ (b'*' | b'/' | b'%')) = letters.get(*at) {
        *at += 1;
        let right = factor(letters, at, depth)?;
        value = match operator {
            b'*' => value.checked_mul(right)?,
            b'/' => value.checked_div(right)?,
            _ => value.checked_rem(right)?,
        };
    }
    Some(value)
}

fn factor(letters: &[u8], at: &mut usize, depth: usize) -> Option<i64> {
    let depth = (depth < MAX_DEPTH).then_some(depth + 1)?;
    match letters.get(*at)? {
        b'(' => {
            *at += 1;
            let value = sum(letters, at, depth)?;
            let closed = letters.get(*at) == Some(&b')');
            *at += 1;
            closed.then_some(value)
        }
        b'-' => {
            *at += 1;
            factor(letters, at, depth)?.checked_neg()
        }
        _ => {
            let length = letters[*at..].iter().take_while(|letter| letter.is_ascii_digit()).count();
            let digits = std::str::from_utf8(&letters[*at..*at + length]).ok()?;
            *at += length;
            digits.parse().ok()
        }
    }
}
