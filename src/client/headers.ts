import { Metadata } from '@grpc/grpc-js';

/** An access token, or a function that returns one for each call. */
export type Token = string | (() => string | Promise<string>);

/**
 * Headers that HTTP/2 and gRPC set themselves. With some of them no stream can start, and grpc-js would retry forever.
 */
const RESERVED =
  /^(grpc-.*|connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|host|te|content-type|content-length)$/i;

/** The headers of a call; those of the call replace those of the connection. Error messages never contain the token. */
export function headersOf(token: string | undefined, callHeaders: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${checkToken(token)}`);
  for (const [name, value] of Object.entries(callHeaders)) {
    if (RESERVED.test(name) || !/^[\w.-]+$/.test(name))
      throw new TypeError(`The header ${JSON.stringify(name)} cannot be set`);
    if (!name.toLowerCase().endsWith('-bin') && !isPrintable(value))
      throw new TypeError(
        `The header ${name} has a value that is not printable ASCII; a header in -bin carries any bytes, in base64`,
      );
    metadata.set(name, name.toLowerCase().endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

/** Trims a token, which removes the line end of a file, and validates it; throws a TypeError. */
export function checkToken(token: string): string {
  const text = typeof token === 'string' ? token.trim() : '';
  if (text === '') throw new TypeError('The token is empty');
  if (!isPrintable(text)) throw new TypeError('The token has characters that are not printable ASCII');
  return text;
}

const isPrintable = (value: unknown) => typeof value === 'string' && /^[ -~]*$/.test(value);
