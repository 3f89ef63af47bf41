import type { Settings } from '../../config.js';
import { readFiles, TlsFilesError } from '../../net/tls_files.js';
import { type Diagnosis, diagnosisFactory } from './diagnosis.js';

const DAY_MS = 86_400_000;
const SOON_DAYS = 14;

/** Checks the TLS files of the settings, and how long the certificate is valid. */
export async function examineCertificate(settings: Settings): Promise<readonly Diagnosis[]> {
  const { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE } = settings;
  if (TLS_CERT_FILE === undefined || TLS_KEY_FILE === undefined) return [];
  const found = diagnosisFactory('tls');
  try {
    const { check } = await readFiles({ TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE });
    const { expires } = check(new Date());
    const days = Math.floor((expires.getTime() - Date.now()) / DAY_MS);
    const until = `The certificate of the service is valid until ${expires.toISOString().slice(0, 10)}`;
    return days < SOON_DAYS ? [found('warn', until, 'Replace the file; the service reloads it')] : [found('ok', until)];
  } catch (error) {
    if (!(error instanceof TlsFilesError)) throw error;
    return error.message.split('\n').map((problem) => found('fail', problem));
  }
}
