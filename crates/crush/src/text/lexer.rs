//! Words and brackets of a text map, with their places.

use super::{Position, Reason, TextError};

/// A value and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub position: Position,
}

/// What a text map is made of. Line ends mean no more than other white space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// Keyword, name or number.
    Word(&'a str),
    /// One of `{`, `}`, `[`, `]`.
    Bracket(char),
    /// The end of the text.
    End,
}

/// Cuts text into tokens. `#` starts a comment that ends with its line.
pub(super) struct Lexer<'a> {
    rest: &'a str,
    position: Position,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Lexer { rest: text, position: Position { line: 1, column: 1 } }
    }

    /// The next token; [`Token::End`] again and again at the end.
    pub fn next_token(&mut self) -> Result<At<Token<'a>>, TextError> {
        self.skip_blank();
        let position = self.position;
        let Some(first) = self.rest.chars().next() else {
            return Ok(At { value: Token::End, position });
        };
        if matches!(first, '{' | '}' | '[' | ']') {
            self.advance(1);
            return Ok(At { value: Token::Bracket(first), position });
        }
        let length = self.rest.bytes().take_while(|&byte| is_word_byte(byte)).count();
        if length == 0 {
            return Err(TextError { position, reason: Reason::Character(first) });
        }
        let word = &self.rest[..length];
        self.advance(length);
        Ok(At { value: Token::Word(word), position })
    }

    /// Steps over `length` bytes of ASCII without line ends.
    fn advance(&mut self, length: usize) {
        self.rest = &self.rest[length..];
        // A line of 2^32 columns does not fit the bound on a text map.
        self.position.column += length as u32;
    }

    fn skip_blank(&mut self) {
        let mut in_comment = false;
        let mut chars = self.rest.chars();
        while let Some(next) = chars.clone().next() {
            if next == '\n' {
                in_comment = false;
                self.position = Position { line: self.position.line + 1, column: 1 };
            } else if in_comment || next.is_ascii_whitespace() || next == '\x0b' {
                self.position.column += 1;
            } else if next == '#' {
                in_comment = true;
                self.position.column += 1;
            } else {
                break;
            }
            chars.next();
        }
        self.rest = chars.as_str();
    }
}

/// Whether a byte may stand in a word. `+` occurs in numbers only.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+')
}
