//! How the tool fails: with a sentence, or as Kafka's does when an exception ends it.

use std::fmt;

use crate::cli::admin::AdminError;
use crate::cli::exception::Exception;

/// Why the tool ends. It is shown with its line ends, on standard output like everything else that the tool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A sentence that says it all.
    Terse(String),
    /// An exception and those that caused it, the last cause last.
    Thrown(Vec<Exception>),
}

impl Fault {
    /// An exception that nothing caused.
    pub fn from_thrown(exception: Exception) -> Fault {
        Fault::Thrown(vec![exception])
    }

    /// What can't be done as it was asked for.
    pub fn command_failed(message: impl Into<String>) -> Fault {
        Fault::from_thrown(Exception::new("org.apache.kafka.tools.AdminCommandFailedException", message))
    }

    /// What the tool can't do.
    pub fn operation(message: impl Into<String>) -> Fault {
        Fault::from_thrown(Exception::new("org.apache.kafka.tools.AdminOperationException", message))
    }

    /// The same, caused by this.
    pub fn caused_by(self, cause: Fault) -> Fault {
        match (self, cause) {
            (Fault::Thrown(mut exceptions), Fault::Thrown(causes)) => {
                exceptions.extend(causes);
                Fault::Thrown(exceptions)
            }
            (fault, _) => fault,
        }
    }
}

/// What the cluster says reaches Kafka's tool by way of a future.
impl From<Exception> for Fault {
    fn from(exception: Exception) -> Fault {
        let outer = Exception::new("java.util.concurrent.ExecutionException", exception.to_string());
        Fault::Thrown(vec![outer, exception])
    }
}

impl From<AdminError> for Fault {
    fn from(fault: AdminError) -> Fault {
        match fault {
            AdminError::Properties(text) => Fault::from_thrown(Exception::config(text)),
            AdminError::Bootstrap(reason) => {
                let class = "org.apache.kafka.common.KafkaException";
                let outer = Exception::new(class, crate::cli::admin::NO_CLIENT);
                Fault::Thrown(vec![outer, Exception::config(reason)])
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Terse(text) => writeln!(to, "{text}"),
            Fault::Thrown(exceptions) => {
                for (at, exception) in exceptions.iter().enumerate() {
                    match at {
                        0 if exception.message.is_empty() => writeln!(to, "Error: null\n{exception}")?,
                        0 => writeln!(to, "Error: {}\n{exception}", exception.message)?,
                        _ => writeln!(to, "Caused by: {exception}")?,
                    }
                }
                writeln!(to)
            }
        }
    }
}
