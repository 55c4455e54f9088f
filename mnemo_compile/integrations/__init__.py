"""The few lines that some libraries need around an optimizer, a file per library. Nothing else imports them."""
