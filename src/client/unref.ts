import type { ChannelCredentials } from '@grpc/grpc-js';

interface Connector {
  connect(socket: unknown): Promise<{ readonly socket: { ref(): unknown; unref(): unknown } }>;
}

/**
 * Credentials whose connections do not keep the process alive, even during a call. grpc-js refs the socket while a call
 * is in progress, so an endless stream would prevent every process that does not close it from exiting. The secure
 * connector gives access to the socket. With a version of grpc-js that has no such connector the stream keeps the
 * process alive; nothing else changes.
 */
export function unref(credentials: ChannelCredentials): ChannelCredentials {
  const inner = credentials as unknown as { _createSecureConnector?: (...args: unknown[]) => Connector };
  const create = inner._createSecureConnector?.bind(credentials);
  if (create)
    inner._createSecureConnector = (...args) => {
      const connector = create(...args);
      const connect = connector.connect.bind(connector);
      connector.connect = async (tcp) => {
        const secured = await connect(tcp);
        const { socket } = secured;
        socket.unref();
        socket.ref = () => socket;
        return secured;
      };
      return connector;
    };
  return credentials;
}
