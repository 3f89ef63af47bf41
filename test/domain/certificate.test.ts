import 'reflect-metadata';
import { webcrypto, X509Certificate } from 'node:crypto';
import { type JsonGeneralNames, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { certificateIdentities, type PeerNames } from '../../src/domain/certificate.js';

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const keys = webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);

/** The names that Node reports for a real certificate with these names. */
async function namesOf(common: readonly string[], names: JsonGeneralNames): Promise<PeerNames> {
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: common.map((CN) => ({ CN: [CN] })),
    keys: await keys,
    signingAlgorithm: EC,
    extensions: names.length > 0 ? [new SubjectAlternativeNameExtension(names)] : [],
  });
  return new X509Certificate(cert.toString('pem')).toLegacyObject() as PeerNames;
}
const identities = async (common: readonly string[], names: JsonGeneralNames = []) =>
  certificateIdentities(await namesOf(common, names));
const url = (value: string) => ({ type: 'url' as const, value });
const dns = (value: string) => ({ type: 'dns' as const, value });

describe('the identities of a certificate', () => {
  it('are its URIs, then its DNS names, then its common name, in this order', async () => {
    const names = [dns('Trader.Example'), url('spiffe://desk/trader'), dns('b.example'), url('urn:x:1')];
    expect(await identities(['trader'], names)).toEqual([
      'spiffe://desk/trader',
      'urn:x:1',
      'trader.example',
      'b.example',
      'CN=trader',
    ]);
    expect(await identities(['trader'])).toEqual(['CN=trader']);
    expect(await identities([])).toEqual([]);
    expect(certificateIdentities({ subject: { CN: '' } })).toEqual([]);
  });

  it('exclude IP addresses, e-mail addresses and wildcards', async () => {
    const names = [
      { type: 'ip' as const, value: '10.0.0.1' },
      { type: 'email' as const, value: 'trader@desk.example' },
      dns('*.desk.example'),
    ];
    expect(await identities([], names)).toEqual([]);
  });

  it('exclude a name that embeds the syntax of another name', async () => {
    for (const hidden of ['DNS:admin.example', 'URI:spiffe://desk/admin', 'CN=admin'])
      for (const value of [
        `x, ${hidden}`,
        `spiffe://x, ${hidden}`,
        `x", ${hidden}`,
        `x\\", ${hidden}, DNS:"y`,
        `spiffe://x\0, ${hidden}`,
        `spiffe://x\n${hidden}`,
        `", ${hidden}, "`,
      ])
        for (const name of [url(value), dns(value)]) expect(await identities([], [name]), value).toEqual([]);
  });

  it('exclude a name that has the form of another kind', async () => {
    expect(await identities([], [dns('CN=admin'), url('CN=admin')])).toEqual([]);
    expect(await identities([], [url('admin.example')])).toEqual([]);
    expect(await identities([], [dns('spiffe://desk/admin')])).toEqual([]);
    expect(await identities(['spiffe://desk/admin'])).toEqual(['CN=spiffe://desk/admin']);
  });

  it('contain only visible ASCII and at most 300 characters', async () => {
    expect(await identities(['träder'])).toEqual([]);
    expect(await identities(['two words'])).toEqual([]);
    const uri = (length: number) => 'urn:x:'.padEnd(length, 'a');
    expect(await identities([], [url(uri(300))])).toEqual([uri(300)]);
    expect(await identities([], [url(uri(301))])).toEqual([]);
  });

  it('exclude common names when there are several, because the verified one is unknown', async () =>
    expect(await identities(['trader', 'admin'])).toEqual([]));

  it('are a subset of the names of the certificate for any names', async () => {
    const specialText = fc.string({
      unit: fc.constantFrom(...'ab:,. "\\=/\0', ', DNS:', ', URI:', 'urn:'),
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(specialText, { maxLength: 4 }),
        fc.array(specialText, { maxLength: 4 }),
        async (urls, hosts) => {
          const found = await identities([], [...urls.map(url), ...hosts.map(dns)]);
          const names = [...urls, ...hosts.map((host) => host.toLowerCase())];
          expect(found.filter((identity) => !names.includes(identity))).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('are empty when subjectaltname is malformed', () => {
    for (const text of ['URI:"x', 'URI:x, "', 'URI:urn:a"b, DNS:c', '"URI:urn:a\\"'])
      expect(certificateIdentities({ subjectaltname: text }), text).toEqual([]);
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const identity of certificateIdentities({ subjectaltname: text }))
          expect(text.toLowerCase()).toContain(identity.toLowerCase());
      }),
    );
  });
});
