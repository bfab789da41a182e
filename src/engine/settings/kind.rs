//! What values settings take, and how the kernel writes and reads them.
//!
//! **Source** — Linux `proc_dointvec` and its like, and recordings.

use super::SettingError;

/// A kind of values.
pub trait Kind {
    /// What is kept.
    type Value;

    /// A value as text.
    fn show(value: &Self::Value) -> String;

    /// Changes a value to what `text` says.
    ///
    /// **Errors** — if it is none of this kind; the value stays then.
    fn read(text: &str, value: &mut Self::Value) -> Result<(), SettingError>;
}

/// Any 32-bit number.
pub struct Number;

/// A number between two bounds.
pub struct Range<const LEAST: i32, const MOST: i32>;

/// A power of two.
pub struct PowerOfTwo;

/// A time in seconds that fits a count of ticks.
pub struct Seconds;

/// A number of things, as wide as a machine word.
pub struct Size;

/// Two numbers that are not negative, the first below the second if that is not 0.
pub struct Pair;

/// A number that can only be read.
pub struct Fixed;

/// **Source** — the recorded kernel's `HZ`.
const TICKS_PER_S: i32 = 100;
/// Characters of a number, with its sign and leading zeros. **Source** — recorded.
const LONGEST_NUMBER: usize = 20;

impl Kind for Number {
    type Value = i32;

    fn show(value: &i32) -> String {
        value.to_string()
    }

    fn read(text: &str, value: &mut i32) -> Result<(), SettingError> {
        read_if(text, value, |_| true)
    }
}

impl<const LEAST: i32, const MOST: i32> Kind for Range<LEAST, MOST> {
    type Value = i32;

    fn show(value: &i32) -> String {
        value.to_string()
    }

    fn read(text: &str, value: &mut i32) -> Result<(), SettingError> {
        read_if(text, value, |number| (LEAST..=MOST).contains(&number))
    }
}

impl Kind for PowerOfTwo {
    type Value = i32;

    fn show(value: &i32) -> String {
        value.to_string()
    }

    fn read(text: &str, value: &mut i32) -> Result<(), SettingError> {
        read_if(text, value, |number| number > 0 && number.count_ones() == 1)
    }
}

impl Kind for Seconds {
    type Value = i32;

    fn show(value: &i32) -> String {
        value.to_string()
    }

    fn read(text: &str, value: &mut i32) -> Result<(), SettingError> {
        let most = i32::MAX / TICKS_PER_S;
        read_if(text, value, |number| (-most..=most).contains(&number))
    }
}

impl Kind for Fixed {
    type Value = i32;

    fn show(value: &i32) -> String {
        value.to_string()
    }

    fn read(_: &str, _: &mut i32) -> Result<(), SettingError> {
        Err(SettingError::ReadOnly)
    }
}

impl Kind for Size {
    type Value = u64;

    fn show(value: &u64) -> String {
        value.to_string()
    }

    fn read(text: &str, value: &mut u64) -> Result<(), SettingError> {
        let first = Numbers(text).next().ok_or(SettingError::Invalid)??;
        // Not even a negative zero.
        if text.trim_start_matches(is_blank).starts_with('-') {
            return Err(SettingError::Invalid);
        }
        *value = u64::try_from(first).map_err(|_| SettingError::Invalid)?;
        Ok(())
    }
}

impl Kind for Pair {
    type Value = [i32; 2];

    fn show([first, second]: &[i32; 2]) -> String {
        format!("{first}\t{second}")
    }

    fn read(text: &str, value: &mut [i32; 2]) -> Result<(), SettingError> {
        let mut new = *value;
        let mut numbers = Numbers(text);
        new[0] = narrow(numbers.next().ok_or(SettingError::Invalid)??)?;
        if let Some(second) = numbers.next() {
            new[1] = narrow(second?)?;
        }
        let [first, second] = new;
        if first < 0 || second < 0 || (second != 0 && first >= second) {
            return Err(SettingError::Invalid);
        }
        *value = new;
        Ok(())
    }
}

/// Takes the first number of a text over, if it fits. What follows it is not looked at.
fn read_if(
    text: &str,
    value: &mut i32,
    fits: impl FnOnce(i32) -> bool,
) -> Result<(), SettingError> {
    let number = narrow(Numbers(text).next().ok_or(SettingError::Invalid)??)?;
    if !fits(number) {
        return Err(SettingError::Invalid);
    }
    *value = number;
    Ok(())
}

fn narrow(number: i128) -> Result<i32, SettingError> {
    i32::try_from(number).map_err(|_| SettingError::Invalid)
}

/// The numbers of a text: decimal, hexadecimal after `0x`, octal after `0`, between white space.
struct Numbers<'a>(&'a str);

impl Iterator for Numbers<'_> {
    type Item = Result<i128, SettingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches(is_blank);
        let end = text.find(is_blank).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then(|| number(word).ok_or(SettingError::Invalid))
    }
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n')
}

fn number(word: &str) -> Option<i128> {
    if word.len() > LONGEST_NUMBER {
        return None;
    }
    let (sign, word) = word.strip_prefix('-').map_or((1, word), |word| (-1, word));
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if word.starts_with('0') => (word, 8),
        None => (word, 10),
    };
    // Rust takes a sign here, the kernel none after its own.
    let digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)?;
    Some(sign * i128::from(u64::from_str_radix(digits, radix).ok()?))
}
