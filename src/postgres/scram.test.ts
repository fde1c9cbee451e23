import { expect, test } from 'vitest';
import { scramVerifier, verifies } from './scram.ts';

test('the verifier is what Postgres itself stores', () => {
  // pg_authid.rolpassword of Postgres 15 for the password "pencil" with this salt (salt and password of RFC 7677).
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  expect(scramVerifier('pencil', salt)).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  );
});

test('a verifier is of its own password only', () => {
  const verifier = scramVerifier('pencil', Buffer.alloc(16, 7));
  expect(verifies(verifier, 'pencil')).toBe(true);
  expect(verifies(verifier, 'Pencil')).toBe(false);
  expect(verifies('md5aaaa', 'pencil')).toBe(false);
});
