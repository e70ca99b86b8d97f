//! From tokens to the tree of a text map.
//!
//! The grammar is that of Ceph's `crushtool`: tunables, devices and types first, in any order; then
//! buckets; then rules; then choose-args. Beyond Ceph 16 it takes rules without sizes (newer
//! versions leave them out), numbered rule types and `step noop`, which its own decompiler prints.

use super::ast::*;
use super::lexer::{At, Lexer, Token};
use super::{Position, Reason, TextError};
use crate::{Algorithm, Step};
use cairn_types::Weight;

/// What pools without a size range of their own are given by Ceph 17 and newer.
const DEFAULT_RULE_SIZES: (u8, u8) = (1, 100);

pub(super) fn parse(text: &str) -> Result<Ast<'_>, TextError> {
    let mut parser = Parser::new(text)?;
    let mut ast = Ast::default();
    loop {
        match parser.next.value {
            Token::Word("tunable") => {
                parser.advance()?;
                ast.tunables.push((parser.name("the name of a tunable")?, parser.number("a value")?));
            }
            Token::Word("device") => {
                parser.advance()?;
                ast.devices.push(DeviceLine {
                    id: parser.number("a device number")?,
                    name: parser.name("a device name")?,
                    class: parser.class()?,
                });
            }
            Token::Word("type") => {
                parser.advance()?;
                ast.types.push(TypeLine {
                    id: parser.number("a type number")?,
                    name: parser.name("a type name")?,
                });
            }
            _ => break,
        }
    }
    loop {
        match parser.next.value {
            Token::Word("rule") => ast.rules.push(parser.rule()?),
            Token::Word("choose_args") | Token::End => break,
            Token::Word(word @ ("tunable" | "device" | "type")) => {
                return Err(parser.next.error(Reason::AfterBuckets(word.to_owned())));
            }
            Token::Word(_) if !ast.rules.is_empty() => {
                return Err(parser.next.error(Reason::BucketAfterRule));
            }
            Token::Word(_) => ast.buckets.push(parser.bucket()?),
            Token::Bracket(_) => return Err(parser.unexpected("a bucket, a rule or choose_args")),
        }
    }
    while parser.accept("choose_args")? {
        ast.choose_args.push(parser.choose_args()?);
    }
    match parser.next.value {
        Token::End => Ok(ast),
        _ => Err(parser.unexpected("choose_args or the end of the map")),
    }
}

/// One token ahead.
struct Parser<'a> {
    lexer: Lexer<'a>,
    next: At<Token<'a>>,
}

impl<T> At<T> {
    pub fn error(&self, reason: Reason) -> TextError {
        TextError { position: self.position, reason }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), position: self.position }
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, TextError> {
        let mut lexer = Lexer::new(text);
        let next = lexer.next_token()?;
        Ok(Parser { lexer, next })
    }

    fn advance(&mut self) -> Result<At<Token<'a>>, TextError> {
        Ok(std::mem::replace(&mut self.next, self.lexer.next_token()?))
    }

    fn unexpected(&self, expected: &'static str) -> TextError {
        let found = match self.next.value {
            Token::Word(word) => format!("'{}'", shortened(word)),
            Token::Bracket(bracket) => format!("'{bracket}'"),
            Token::End => "the end of the map".to_owned(),
        };
        self.next.error(Reason::Expected { expected, found })
    }

    /// Steps over the keyword, if it is next.
    fn accept(&mut self, keyword: &str) -> Result<bool, TextError> {
        let found = self.next.value == Token::Word(keyword);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn keyword(&mut self, keyword: &'static str) -> Result<Position, TextError> {
        let position = self.next.position;
        match self.accept(keyword)? {
            true => Ok(position),
            false => Err(self.unexpected(keyword)),
        }
    }

    fn bracket(&mut self, bracket: char, expected: &'static str) -> Result<(), TextError> {
        if self.next.value != Token::Bracket(bracket) {
            return Err(self.unexpected(expected));
        }
        self.advance().map(drop)
    }

    fn word(&mut self, expected: &'static str) -> Result<At<&'a str>, TextError> {
        match self.next.value {
            Token::Word(word) => Ok(self.advance()?.map(|_| word)),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn name(&mut self, expected: &'static str) -> Result<At<&'a str>, TextError> {
        match self.next.value {
            Token::Word(word) if !word.contains('+') => self.word(expected),
            _ => Err(self.unexpected(expected)),
        }
    }

    /// `[class NAME]`
    fn class(&mut self) -> Result<Option<At<&'a str>>, TextError> {
        match self.accept("class")? {
            true => self.name("the name of a device class").map(Some),
            false => Ok(None),
        }
    }

    /// Digits.
    fn number<T: std::str::FromStr>(&mut self, expected: &'static str) -> Result<At<T>, TextError> {
        match self.next.value {
            Token::Word(word) if word.bytes().all(|byte| byte.is_ascii_digit()) => self.parsed(expected),
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Digits with a minus sign.
    fn negative(&mut self, expected: &'static str) -> Result<At<i32>, TextError> {
        let number = self.integer(expected)?;
        match number.value < 0 {
            true => Ok(number),
            false => Err(number.error(Reason::NotNegative(number.value))),
        }
    }

    /// Digits, perhaps with a minus sign.
    fn integer(&mut self, expected: &'static str) -> Result<At<i32>, TextError> {
        match self.next.value {
            Token::Word(word) => {
                let digits = word.strip_prefix('-').unwrap_or(word);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(self.unexpected(expected));
                }
                self.parsed(expected)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, expected: &'static str) -> Result<At<T>, TextError> {
        let word = self.word(expected)?;
        match word.value.parse() {
            Ok(value) => Ok(word.map(|_| value)),
            Err(_) => Err(word.error(Reason::NumberTooLarge(shortened(word.value)))),
        }
    }

    /// A weight, as `crushtool` computes it: the decimal number rounded to a single precision float, times
    /// 2^16, cut to an integer.
    fn weight(&mut self) -> Result<At<Weight>, TextError> {
        let word = self.word("a weight")?;
        let number = word.value;
        if let Some(magnitude) = number.strip_prefix('-')
            && is_real(magnitude)
        {
            return Err(word.error(Reason::NegativeWeight(shortened(number))));
        }
        let magnitude = number.strip_prefix('+').unwrap_or(number);
        if !is_real(magnitude) {
            let found = format!("'{}'", shortened(number));
            return Err(word.error(Reason::Expected { expected: "a weight", found }));
        }
        let fixed = match magnitude.parse::<f32>() {
            Ok(value) => value * 65536.0,
            Err(_) => f32::INFINITY,
        };
        // 2^32 as a float; anything below it fits.
        if fixed >= 4_294_967_296.0 {
            return Err(word.error(Reason::NumberTooLarge(shortened(number))));
        }
        Ok(word.map(|_| Weight(fixed as u32)))
    }

    fn bucket(&mut self) -> Result<BucketBlock<'a>, TextError> {
        let kind = self.name("a bucket type")?;
        let name = self.name("a bucket name")?;
        self.bracket('{', "'{'")?;
        let mut id = None;
        let mut shadow_ids = Vec::new();
        while self.accept("id")? {
            let number = self.negative("a bucket id")?;
            match self.class()? {
                Some(class) => shadow_ids.push((number, class)),
                None if id.is_some() => return Err(number.error(Reason::SecondId)),
                None => id = Some(number),
            }
        }
        self.keyword("alg")?;
        let word = self.name("a bucket algorithm")?;
        let algorithm = match word.value {
            "uniform" => Algorithm::Uniform,
            "list" => Algorithm::List,
            "tree" => Algorithm::Tree,
            "straw" => Algorithm::Straw,
            "straw2" => Algorithm::Straw2,
            other => return Err(word.error(Reason::UnknownAlgorithm(shortened(other)))),
        };
        while self.accept("hash")? {
            let hash = self.word("a hash")?;
            if !matches!(hash.value, "0" | "rjenkins1") {
                return Err(hash.error(Reason::UnknownHash(shortened(hash.value))));
            }
        }
        let mut items = Vec::new();
        while self.accept("item")? {
            items.push(ItemLine {
                name: self.name("the name of an item")?,
                weight: self.accept("weight")?.then(|| self.weight()).transpose()?,
                position: self.accept("pos")?.then(|| self.number("a position")).transpose()?,
            });
        }
        self.bracket('}', "item or '}'")?;
        Ok(BucketBlock { kind, name, id, shadow_ids, algorithm: word.map(|_| algorithm), items })
    }

    fn rule(&mut self) -> Result<RuleBlock<'a>, TextError> {
        let keyword = At { value: (), position: self.keyword("rule")? };
        let name = match self.next.value {
            Token::Bracket('{') => None,
            _ => Some(self.name("a rule name or '{'")?),
        };
        self.bracket('{', "'{'")?;
        if !self.accept("ruleset")? {
            self.keyword("id")?;
        }
        let id = self.number::<u8>("a rule number")?;
        self.keyword("type")?;
        let word = self.name("replicated or erasure")?;
        let kind = match word.value {
            "replicated" => 1,
            "erasure" => 3,
            "msr_firstn" | "msr_indep" => return Err(word.error(Reason::Msr(word.value.to_owned()))),
            other => other.parse().map_err(|_| word.error(Reason::UnknownRuleType(shortened(other))))?,
        };
        let mut sizes = DEFAULT_RULE_SIZES;
        if self.accept("min_size")? {
            sizes.0 = self.number("a number of replicas")?.value;
        }
        if self.accept("max_size")? {
            sizes.1 = self.number("a number of replicas")?.value;
        }
        let mut steps = Vec::new();
        while self.next.value == Token::Word("step") {
            let position = self.advance()?.position;
            steps.push(At { value: self.step()?, position });
        }
        if steps.is_empty() {
            return Err(self.unexpected("step"));
        }
        self.bracket('}', "step or '}'")?;
        Ok(RuleBlock { keyword, name, id, kind, min_size: sizes.0, max_size: sizes.1, steps })
    }

    fn step(&mut self) -> Result<StepLine<'a>, TextError> {
        let operation = self.name("the operation of a step")?;
        let plain = match operation.value {
            "take" => {
                return Ok(StepLine::Take { item: self.name("the name of an item")?, class: self.class()? });
            }
            "choose" => return self.choose(false),
            "chooseleaf" => return self.choose(true),
            "noop" => Step::Noop,
            "emit" => Step::Emit,
            "set_choose_tries" => Step::SetChooseTries(self.step_value()?),
            "set_chooseleaf_tries" => Step::SetChooseleafTries(self.step_value()?),
            "set_choose_local_tries" => Step::SetChooseLocalTries(self.step_value()?),
            "set_choose_local_fallback_tries" => Step::SetChooseLocalFallbackTries(self.step_value()?),
            "set_chooseleaf_vary_r" => Step::SetChooseleafVaryR(self.step_value()?),
            "set_chooseleaf_stable" => Step::SetChooseleafStable(self.step_value()?),
            "set_msr_descents" | "set_msr_collision_tries" => {
                return Err(operation.error(Reason::Msr(operation.value.to_owned())));
            }
            other => return Err(operation.error(Reason::UnknownStep(shortened(other)))),
        };
        Ok(StepLine::Plain(plain))
    }

    fn step_value(&mut self) -> Result<i32, TextError> {
        self.number("a value").map(|number| number.value)
    }

    fn choose(&mut self, leaf: bool) -> Result<StepLine<'a>, TextError> {
        let indep = match self.next.value {
            Token::Word("firstn") => false,
            Token::Word("indep") => true,
            _ => return Err(self.unexpected("firstn or indep")),
        };
        self.advance()?;
        let num = self.integer("how many to choose")?.value;
        self.keyword("type")?;
        Ok(StepLine::Choose { leaf, indep, num, kind: self.name("a type name")? })
    }

    fn choose_args(&mut self) -> Result<ChooseArgsBlock, TextError> {
        // Decompilers print the default set, -1, as an unsigned number.
        let id = self.number::<u64>("the id of a choose_args set")?;
        let id = match id.value {
            u64::MAX => id.map(|_| -1),
            value if value <= i32::MAX as u64 => id.map(|_| value as i64),
            value => return Err(id.error(Reason::NumberTooLarge(value.to_string()))),
        };
        self.bracket('{', "'{'")?;
        let mut args = Vec::new();
        while self.next.value == Token::Bracket('{') {
            self.advance()?;
            args.push(self.choose_arg()?);
        }
        self.bracket('}', "'{' or '}'")?;
        Ok(ChooseArgsBlock { id, args })
    }

    fn choose_arg(&mut self) -> Result<ChooseArgBlock, TextError> {
        self.keyword("bucket_id")?;
        let bucket = self.negative("a bucket id")?;
        let mut weight_sets = Vec::new();
        if self.accept("weight_set")? {
            self.bracket('[', "'['")?;
            while self.next.value == Token::Bracket('[') {
                let position = self.advance()?.position;
                let mut weights = Vec::new();
                while let Token::Word(_) = self.next.value {
                    weights.push(self.weight()?.value);
                }
                self.bracket(']', "a weight or ']'")?;
                weight_sets.push(At { value: weights, position });
            }
            self.bracket(']', "'[' or ']'")?;
        }
        let mut ids = None;
        if self.next.value == Token::Word("ids") {
            let position = self.advance()?.position;
            self.bracket('[', "'['")?;
            let mut values = Vec::new();
            while let Token::Word(_) = self.next.value {
                values.push(self.integer("an id")?.value);
            }
            self.bracket(']', "an id or ']'")?;
            ids = Some(At { value: values, position });
        }
        self.bracket('}', "'}'")?;
        Ok(ChooseArgBlock { bucket, weight_sets, ids })
    }
}

/// Digits with an optional fraction and an optional exponent: `1`, `1.`, `.5`, `2.5e-3`.
fn is_real(text: &str) -> bool {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let magnitude = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !magnitude.is_empty() && digits(magnitude)
    });
    exponent_fits && digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

/// At most this much of a word is repeated in an error.
const SHOWN_CHARS: usize = 60;

fn shortened(word: &str) -> String {
    match word.len() > SHOWN_CHARS {
        // Words are ASCII.
        true => format!("{}…", &word[..SHOWN_CHARS]),
        false => word.to_owned(),
    }
}
