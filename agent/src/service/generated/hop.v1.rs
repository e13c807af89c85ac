/// Generated server implementations.
pub mod agent_server {
    #![allow(
        unused_variables,
        dead_code,
        missing_docs,
        clippy::wildcard_imports,
        clippy::let_unit_value,
    )]
    use tonic::codegen::*;
    /// Generated trait containing gRPC methods that should be implemented for use with AgentServer.
    #[async_trait]
    pub trait Agent: std::marker::Send + std::marker::Sync + 'static {
        /// What the router is and what this agent can do. Starts no job and changes nothing.
        async fn info(
            &self,
            request: tonic::Request<::hop_proto::v1::InfoRequest>,
        ) -> std::result::Result<
            tonic::Response<::hop_proto::v1::InfoReply>,
            tonic::Status,
        >;
        /// Server streaming response type for the Run method.
        type RunStream: tonic::codegen::tokio_stream::Stream<
                Item = std::result::Result<::hop_proto::v1::RunReply, tonic::Status>,
            >
            + std::marker::Send
            + 'static;
        /// One job, from its specification to its outcome. The first request is `spec`. A client that half-closes the stream has
        /// sent all of standard input. When the stream is reset or its connection breaks, the job goes on for `JobSpec.linger_ms`,
        /// and is killed unless a controller attaches.
        async fn run(
            &self,
            request: tonic::Request<tonic::Streaming<::hop_proto::v1::RunRequest>>,
        ) -> std::result::Result<tonic::Response<Self::RunStream>, tonic::Status>;
        /// Server streaming response type for the Attach method.
        type AttachStream: tonic::codegen::tokio_stream::Stream<
                Item = std::result::Result<::hop_proto::v1::RunReply, tonic::Status>,
            >
            + std::marker::Send
            + 'static;
        /// Comes back to a job, wherever it stands. The first request is `attach`; everything else is as in Run. Capability
        /// "attach". A job has one controller at a time: an older stream of the same job ends with ERROR_REASON_TAKEN_OVER.
        async fn attach(
            &self,
            request: tonic::Request<tonic::Streaming<::hop_proto::v1::RunRequest>>,
        ) -> std::result::Result<tonic::Response<Self::AttachStream>, tonic::Status>;
        /// The jobs that there are, those of other controllers included.
        async fn jobs(
            &self,
            request: tonic::Request<::hop_proto::v1::JobsRequest>,
        ) -> std::result::Result<
            tonic::Response<::hop_proto::v1::JobsReply>,
            tonic::Status,
        >;
        /// Server streaming response type for the Logs method.
        type LogsStream: tonic::codegen::tokio_stream::Stream<
                Item = std::result::Result<::hop_proto::v1::Output, tonic::Status>,
            >
            + std::marker::Send
            + 'static;
        /// The output of a job that nobody has acknowledged, as it is now, without attaching. Only its own controller may.
        async fn logs(
            &self,
            request: tonic::Request<::hop_proto::v1::LogsRequest>,
        ) -> std::result::Result<tonic::Response<Self::LogsStream>, tonic::Status>;
        /// Sends a signal to a job, as `Signal` does, without attaching. Only its own controller may.
        async fn kill(
            &self,
            request: tonic::Request<::hop_proto::v1::KillRequest>,
        ) -> std::result::Result<
            tonic::Response<::hop_proto::v1::KillReply>,
            tonic::Status,
        >;
        /// Lets the controller's next key in, beside the one that this connection has proved. Nothing happens if it is on the
        /// list already. Capability "rotate".
        async fn add_next_key(
            &self,
            request: tonic::Request<::hop_proto::v1::AddNextKeyRequest>,
        ) -> std::result::Result<
            tonic::Response<::hop_proto::v1::AddNextKeyReply>,
            tonic::Status,
        >;
        /// Takes the key off the list that the one of this connection was let in to replace by AddNextKey. The jobs of that key
        /// are this one's from then on. Nothing happens if there is none. Capability "rotate".
        async fn retire_previous_key(
            &self,
            request: tonic::Request<::hop_proto::v1::RetirePreviousKeyRequest>,
        ) -> std::result::Result<
            tonic::Response<::hop_proto::v1::RetirePreviousKeyReply>,
            tonic::Status,
        >;
    }
    #[derive(Debug)]
    pub struct AgentServer<T> {
        inner: Arc<T>,
        accept_compression_encodings: EnabledCompressionEncodings,
        send_compression_encodings: EnabledCompressionEncodings,
        max_decoding_message_size: Option<usize>,
        max_encoding_message_size: Option<usize>,
    }
    impl<T> AgentServer<T> {
        pub fn new(inner: T) -> Self {
            Self::from_arc(Arc::new(inner))
        }
        pub fn from_arc(inner: Arc<T>) -> Self {
            Self {
                inner,
                accept_compression_encodings: Default::default(),
                send_compression_encodings: Default::default(),
                max_decoding_message_size: None,
                max_encoding_message_size: None,
            }
        }
        pub fn with_interceptor<F>(
            inner: T,
            interceptor: F,
        ) -> InterceptedService<Self, F>
        where
            F: tonic::service::Interceptor,
        {
            InterceptedService::new(Self::new(inner), interceptor)
        }
        /// Enable decompressing requests with the given encoding.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.accept_compression_encodings.enable(encoding);
            self
        }
        /// Compress responses with the given encoding, if the client supports it.
        #[must_use]
        pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.send_compression_encodings.enable(encoding);
            self
        }
        /// Limits the maximum size of a decoded message.
        ///
        /// Default: `4MB`
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
            self.max_decoding_message_size = Some(limit);
            self
        }
        /// Limits the maximum size of an encoded message.
        ///
        /// Default: `usize::MAX`
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
            self.max_encoding_message_size = Some(limit);
            self
        }
    }
    impl<T, B> tonic::codegen::Service<http::Request<B>> for AgentServer<T>
    where
        T: Agent,
        B: Body + std::marker::Send + 'static,
        B::Error: Into<StdError> + std::marker::Send + 'static,
    {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;
        fn poll_ready(
            &mut self,
            _cx: &mut Context<'_>,
        ) -> Poll<std::result::Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, req: http::Request<B>) -> Self::Future {
            match req.uri().path() {
                "/hop.v1.Agent/Info" => {
                    #[allow(non_camel_case_types)]
                    struct InfoSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::UnaryService<::hop_proto::v1::InfoRequest>
                    for InfoSvc<T> {
                        type Response = ::hop_proto::v1::InfoReply;
                        type Future = BoxFuture<
                            tonic::Response<Self::Response>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<::hop_proto::v1::InfoRequest>,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::info(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = InfoSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.unary(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/Run" => {
                    #[allow(non_camel_case_types)]
                    struct RunSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::StreamingService<::hop_proto::v1::RunRequest>
                    for RunSvc<T> {
                        type Response = ::hop_proto::v1::RunReply;
                        type ResponseStream = T::RunStream;
                        type Future = BoxFuture<
                            tonic::Response<Self::ResponseStream>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<
                                tonic::Streaming<::hop_proto::v1::RunRequest>,
                            >,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::run(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = RunSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.streaming(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/Attach" => {
                    #[allow(non_camel_case_types)]
                    struct AttachSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::StreamingService<::hop_proto::v1::RunRequest>
                    for AttachSvc<T> {
                        type Response = ::hop_proto::v1::RunReply;
                        type ResponseStream = T::AttachStream;
                        type Future = BoxFuture<
                            tonic::Response<Self::ResponseStream>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<
                                tonic::Streaming<::hop_proto::v1::RunRequest>,
                            >,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::attach(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = AttachSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.streaming(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/Jobs" => {
                    #[allow(non_camel_case_types)]
                    struct JobsSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::UnaryService<::hop_proto::v1::JobsRequest>
                    for JobsSvc<T> {
                        type Response = ::hop_proto::v1::JobsReply;
                        type Future = BoxFuture<
                            tonic::Response<Self::Response>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<::hop_proto::v1::JobsRequest>,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::jobs(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = JobsSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.unary(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/Logs" => {
                    #[allow(non_camel_case_types)]
                    struct LogsSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::ServerStreamingService<::hop_proto::v1::LogsRequest>
                    for LogsSvc<T> {
                        type Response = ::hop_proto::v1::Output;
                        type ResponseStream = T::LogsStream;
                        type Future = BoxFuture<
                            tonic::Response<Self::ResponseStream>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<::hop_proto::v1::LogsRequest>,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::logs(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = LogsSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.server_streaming(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/Kill" => {
                    #[allow(non_camel_case_types)]
                    struct KillSvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::UnaryService<::hop_proto::v1::KillRequest>
                    for KillSvc<T> {
                        type Response = ::hop_proto::v1::KillReply;
                        type Future = BoxFuture<
                            tonic::Response<Self::Response>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<::hop_proto::v1::KillRequest>,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::kill(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = KillSvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.unary(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/AddNextKey" => {
                    #[allow(non_camel_case_types)]
                    struct AddNextKeySvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::UnaryService<::hop_proto::v1::AddNextKeyRequest>
                    for AddNextKeySvc<T> {
                        type Response = ::hop_proto::v1::AddNextKeyReply;
                        type Future = BoxFuture<
                            tonic::Response<Self::Response>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<::hop_proto::v1::AddNextKeyRequest>,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::add_next_key(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = AddNextKeySvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.unary(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                "/hop.v1.Agent/RetirePreviousKey" => {
                    #[allow(non_camel_case_types)]
                    struct RetirePreviousKeySvc<T: Agent>(pub Arc<T>);
                    impl<
                        T: Agent,
                    > tonic::server::UnaryService<
                        ::hop_proto::v1::RetirePreviousKeyRequest,
                    > for RetirePreviousKeySvc<T> {
                        type Response = ::hop_proto::v1::RetirePreviousKeyReply;
                        type Future = BoxFuture<
                            tonic::Response<Self::Response>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<
                                ::hop_proto::v1::RetirePreviousKeyRequest,
                            >,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as Agent>::retire_previous_key(&inner, request).await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = RetirePreviousKeySvc(inner);
                        let codec = crate::service::codec::Codec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.unary(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                _ => {
                    Box::pin(async move {
                        let mut response = http::Response::new(
                            tonic::body::Body::default(),
                        );
                        let headers = response.headers_mut();
                        headers
                            .insert(
                                tonic::Status::GRPC_STATUS,
                                (tonic::Code::Unimplemented as i32).into(),
                            );
                        headers
                            .insert(
                                http::header::CONTENT_TYPE,
                                tonic::metadata::GRPC_CONTENT_TYPE,
                            );
                        Ok(response)
                    })
                }
            }
        }
    }
    impl<T> Clone for AgentServer<T> {
        fn clone(&self) -> Self {
            let inner = self.inner.clone();
            Self {
                inner,
                accept_compression_encodings: self.accept_compression_encodings,
                send_compression_encodings: self.send_compression_encodings,
                max_decoding_message_size: self.max_decoding_message_size,
                max_encoding_message_size: self.max_encoding_message_size,
            }
        }
    }
    /// Generated gRPC service name
    pub const SERVICE_NAME: &str = "hop.v1.Agent";
    impl<T> tonic::server::NamedService for AgentServer<T> {
        const NAME: &'static str = SERVICE_NAME;
    }
}
