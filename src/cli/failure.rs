//! How many of Kafka's tools end by an exception: what happened, the exception with those that belong to it, and an empty
//! line. The frames of the stack trace, which say something about Kafka's own code, aren't shown.

use super::admin::AdminError;
use super::exception::Exception;
use super::jopt::Fault;
use super::output::Output;
use super::tool::Refusal;

/// The end of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    trace: Vec<String>,
}

impl Failure {
    /// By this exception.
    pub fn new(exception: &Exception) -> Failure {
        Failure { message: exception.message.clone(), trace: vec![exception.to_string()] }
    }

    /// By an exception that was met elsewhere: on another thread, or by a method that may not throw it.
    pub fn wrapped(class: &str, cause: &Exception) -> Failure {
        Failure::new(&Exception::new(class, cause.to_string())).caused_by(cause)
    }

    /// By what a call to the cluster ended with.
    pub fn of_call(cause: &Exception) -> Failure {
        Failure::wrapped("java.util.concurrent.ExecutionException", cause)
    }

    /// By a line of arguments that can't be read.
    pub fn of_line(fault: &Fault) -> Failure {
        Failure::new(&Exception::new(fault.class(), fault.to_string()))
    }

    /// By a value that the option can't have.
    pub fn of_value(option: &str, value: &str) -> Failure {
        let text = format!("Cannot parse argument '{value}' of option {option}");
        Failure::new(&Exception::new("joptsimple.OptionArgumentConversionException", text))
    }

    /// By a value that would have to be a number.
    pub fn of_number(option: &str, value: &str) -> Failure {
        let number = Exception::new("java.lang.NumberFormatException", format!("For input string: \"{value}\""));
        let conversion = Exception::new("joptsimple.internal.ReflectionException", number.to_string());
        Failure::of_value(option, value).caused_by(&conversion).caused_by(&number)
    }

    /// By a client that can't begin.
    pub fn of_admin(fault: &AdminError) -> Failure {
        Failure { message: fault.to_string(), trace: fault.exceptions() }
    }

    /// Names the exception's cause.
    pub fn caused_by(mut self, cause: &Exception) -> Failure {
        self.trace.push(format!("Caused by: {cause}"));
        self
    }

    /// Names another exception that didn't come through.
    pub fn suppressing(mut self, other: &Exception) -> Failure {
        self.trace.push(format!("\tSuppressed: {other}"));
        self
    }

    fn text(&self) -> String {
        format!("{}\n{}\n\n", self.message, self.trace.join("\n"))
    }

    /// Says it to stderr. The exit code.
    pub fn print(&self, out: &mut dyn Output) -> u8 {
        out.write_error(&self.text());
        1
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::to_stderr(failure.text())
    }
}
