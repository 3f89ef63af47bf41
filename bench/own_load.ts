import { type ClientHttp2Session, connect } from 'node:http2';
import { frame, type Load, type LoadResult, type Target } from './load.js';
import { closedLoop, serveJobs } from './script.js';
import { quantile } from './statistics.js';

/*
 * A load generator over HTTP/2, for machines without h2load. It uses more CPU than h2load, so its figures can
 * only be compared with each other.
 */

type Job = Omit<Target, 'request'> & Load & { request: number[]; seconds: number; warmUpSeconds: number };

serveJobs(async (job: Job): Promise<LoadResult> => {
  const body = frame(Uint8Array.from(job.request));
  const origin = `${job.tls ? 'https' : 'http'}://127.0.0.1:${job.port}`;
  const sessions = Array.from({ length: job.connections }, () => connect(origin, { rejectUnauthorized: false }));
  try {
    const loopJob = { ...job, concurrency: job.connections * job.streams };
    const call = (worker: number) => callOnce(sessions[worker % sessions.length] as ClientHttp2Session, job, body);
    const { perSecond, latencies } = await closedLoop(loopJob, call);
    return { perSecond, p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
  } finally {
    for (const session of sessions) session.destroy();
  }
});

function callOnce(
  session: ClientHttp2Session,
  { path, replyBytes, replyBytesVary = 0, token }: Job,
  body: Buffer,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    });
    let received = 0;
    let status: unknown;
    stream.on('response', (headers) => {
      status = headers['grpc-status'];
    });
    stream.on('trailers', (trailers) => {
      status = trailers['grpc-status'];
    });
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    stream.on('error', reject);
    stream.on('end', () => {
      if (Number(status) === 0 && Math.abs(received - replyBytes - 5) <= replyBytesVary) resolve();
      else reject(new Error(`${path} returned grpc-status ${status} with ${received} bytes`));
    });
    stream.end(body);
  });
}
