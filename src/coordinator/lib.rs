//! Group coordination as replicated state: decide returns records and a response, only replay changes state.
