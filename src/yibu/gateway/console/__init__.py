"""The console's server side: its page, signing in, and what the page asks. See docs/console.md."""
