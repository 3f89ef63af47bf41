import { Metadata } from '@grpc/grpc-js';

/** A token, or what gives one for each call. */
export type Token = string | (() => string | Promise<string>);

/** What HTTP/2 or gRPC speak of themselves; grpc-js would try some of them for ever (no stream can start with them). */
const RESERVED =
  /^(grpc-.*|connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|host|te|content-type|content-length)$/i;

/** The headers of a call; its own take the place of the connection's. The token's text is in no message. */
export function headersOf(token: string | undefined, own: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${checkToken(token)}`);
  for (const [name, value] of Object.entries(own)) {
    if (RESERVED.test(name) || !/^[\w.-]+$/.test(name))
      throw new TypeError(`The header ${JSON.stringify(name)} cannot be set`);
    if (!name.toLowerCase().endsWith('-bin') && !isPrintable(value))
      throw new TypeError(
        `The header ${name} has a value that is not printable ASCII; one in -bin takes any, in base64`,
      );
    metadata.set(name, name.toLowerCase().endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

/** A token as it can be sent: the line end of the file that it was read from does not belong to it. */
export function checkToken(token: string): string {
  const text = typeof token === 'string' ? token.trim() : '';
  if (text === '') throw new TypeError('The token is empty');
  if (!isPrintable(text)) throw new TypeError('The token has characters that are not printable ASCII');
  return text;
}

const isPrintable = (value: unknown) => typeof value === 'string' && /^[ -~]*$/.test(value);
