/** An SQL string literal. Expects `standard_conforming_strings = on`, the default. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

/** An SQL identifier, kept as it is written. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A value in postgresql.conf: control characters become octal escapes, so that it stays on one line. */
export function quoteSetting(value: string): string {
  const escaped = value
    .replaceAll('\\', '\\\\')
    .replaceAll("'", "''")
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must be escaped
    .replace(/[\x01-\x1f]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
  return `'${escaped}'`;
}
