"""The console's server side: its page, sign-in and API. See docs/console.md."""
