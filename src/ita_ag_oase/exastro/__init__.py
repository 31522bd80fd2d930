"""The only code that knows how Exastro is spoken to: its endpoints, columns, codes and encryption."""
